"""The default prompts for a VLM. They have their own file so that the command line's help can show them quickly."""

SYSTEM = (
    "You are an image caption generator. Your task is to generate a concise and informative caption for the given "
    "image "
    "content."
)
PROMPT = "Describe the image."
MAX_PIXELS = 1024 * 1024
"""Images are scaled down to this many pixels for a VLM: more would take time and seldom shows it more."""
