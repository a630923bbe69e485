"""Backends that are reached over HTTP: a vLLM server (ours or another one), OpenAI, Gemini. One request per batch, many
in flight.

gate.py        how many requests are in flight, and when: shared by all threads of an endpoint
http_client.py the only way to the network: deadlines, sizes, redirects, addresses; uses connections.py
faults.py      why there is no usable answer
sdk_transport.py                       lets the vendors' SDKs use it
answer_sizes.py                        how large an answer may be
pictures.py    image files -> what is sent, scaled down once
dialogue.py    turns with <image> marks -> messages of parts
responses.py   why there is no result: statuses, codes, missing answers
unmasked.py    errors that come with status 200
answer_text.py markup.py no_answers.py text_classifier.py   what came back -> a text, or why there is none
fleet.py       several servers as one
learned.py     schema_form.py   what a server refuses of every request
vllm.py        a vLLM server, started and watched by vllm_server.py
attempt.py     one try at a paid API: its calls, their cost, the images that came
image_words.py what a row says about its images, in the words of image servers
openai_api.py  gemini_api.py           what is sent, through the vendors' own SDKs
chat.py        one chat completion in OpenAI's format, without the SDK, whole or as a stream
captions.py    chat_pictures.py   captions, and images that come out of chats, by it
openai_answers.py  gemini_answers.py   what their answers and exceptions mean
"""
