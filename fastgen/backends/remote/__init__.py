"""Backends that are reached over HTTP: a vLLM server (ours or another one), OpenAI, Gemini. One request a batch, many
at once.

gate.py        how many requests at once, and when: shared by all threads of an endpoint
http_client.py the one way to the network: deadlines, sizes, redirects, addresses; on connections.py
faults.py      why there is no answer that can be used
sdk_transport.py                       the vendors' SDKs on it
answer_sizes.py                        how large an answer may be
pictures.py    files -> what travels, scaled down once
dialogue.py    turns with <image> marks -> messages of parts
responses.py   what came back -> a text, or why it is none
vllm.py        a vLLM server, started and watched by vllm_server.py
attempt.py     one try at a paid API: its calls, their cost, the pictures that came
openai_api.py  gemini_api.py           what goes out, through the vendors' own SDKs
openai_answers.py  gemini_answers.py   what their answers and exceptions mean
"""
