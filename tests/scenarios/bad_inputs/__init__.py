"""Bad inputs of every kind, and the page that shows what is said of them.

case           a bad row, command or call
files          the files that they name
edits, texts, service_rows, commands, run_folders, calls    the inputs, by room
told           runs them
page           docs/bad_input.md; `python -m tests.scenarios.bad_inputs` writes it
"""
