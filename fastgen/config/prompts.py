"""What a VLM is told where nobody says anything. Apart, so that the command line's help can show it at once."""

SYSTEM = (
    "You are an image caption generator. Your task is to generate a concise and informative caption for the given "
    "image "
    "content."
)
PROMPT = "Describe the image."
MAX_PIXELS = 1024 * 1024
"""To which pictures are scaled down before a VLM sees them: more costs it time, and seldom shows it more."""
