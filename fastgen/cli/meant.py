"""What people type for commands and flags that have another name here: words of diffusers, vLLM and other programs."""

from __future__ import annotations

COMMANDS = {
    **dict.fromkeys(
        ("generate", "gen", "image", "images", "txt2img", "text2image", "text-to-image", "create", "run"), "t2i"
    ),
    **dict.fromkeys(("img2img", "i2i", "image2image", "image-to-image", "inpaint", "edits"), "edit"),
    **dict.fromkeys(("describe", "vqa", "ask", "label", "tag", "image2text", "i2t"), "caption"),
    **dict.fromkeys(("gallery", "show", "open", "browse", "look", "html", "ui"), "view"),
    **dict.fromkeys(("install", "vllm"), "setup"),
    **dict.fromkeys(("benchmark", "measure", "profile", "tune"), "bench"),
    **dict.fromkeys(("diagnose", "env", "info", "system"), "doctor"),
    **dict.fromkeys(("verify", "validate", "fsck"), "check"),
    **dict.fromkeys(("results", "csv", "convert"), "table"),
    **dict.fromkeys(("dataset", "save", "push"), "export"),
}

FLAGS = {
    **dict.fromkeys(("--output", "--output-dir", "--outdir", "--output-folder", "--save-dir", "--run"), ("--out",)),
    **dict.fromkeys(("--num-images", "--num-images-per-prompt", "--num-samples", "--count", "--copies"), ("--n",)),
    **dict.fromkeys(("--num-inference-steps", "--num-steps", "--inference-steps"), ("--steps",)),
    **dict.fromkeys(("--guidance-scale", "--cfg", "--cfg-scale", "--scale"), ("--guidance",)),
    **dict.fromkeys(("--width", "--height", "--resolution-px", "--image-size"), ("--size WxH",)),
    **dict.fromkeys(("--device", "--devices", "--gpu", "--num-gpus", "--cuda"), ("--gpus",)),
    **dict.fromkeys(("--batch", "--bs", "--max-batch-size", "--per-device-batch-size"), ("--batch-size",)),
    **dict.fromkeys(("--precision", "--torch-dtype"), ("--dtype",)),
    **dict.fromkeys(("--model-name", "--model-id", "--model-path", "--pretrained-model", "--checkpoint"), ("--model",)),
    **dict.fromkeys(("--lora-path", "--loras", "--adapter"), ("--lora",)),
    **dict.fromkeys(("--prompt-column", "--text-column", "--caption-column", "--text-key"), ("--prompt-key",)),
    **dict.fromkeys(("--image-column", "--input-key", "--images-key"), ("--image-key",)),
    **dict.fromkeys(("--prompts", "--text", "--question", "--instruction"), ("--prompt",)),
    **dict.fromkeys(("--num-rows", "--max-rows", "--head", "--max-samples", "--first"), ("--limit",)),
    **dict.fromkeys(("--overwrite", "--force", "--restart", "--no-resume"), ("--fresh",)),
    **dict.fromkeys(("--retry", "--retry-errors", "--rerun-failed"), ("--retry-failed",)),
    **dict.fromkeys(("--budget", "--max-usd", "--max-spend"), ("--max-cost",)),
    **dict.fromkeys(("--concurrency", "--workers", "--parallelism", "--max-concurrency"), ("--max-inflight",)),
    **dict.fromkeys(("--tensor-parallel-size", "--tp"), ("--gpus-per-replica",)),
    **dict.fromkeys(("--plan", "--dryrun", "--estimate"), ("--dry-run",)),
    **dict.fromkeys(("--silent",), ("--quiet",)),
    **dict.fromkeys(("--image-format", "--ext", "--extension", "--jpeg-quality"), ("--format",)),
    **dict.fromkeys(("--api-base", "--endpoint", "--url", "--server", "--api-url"), ("--base-url",)),
    **dict.fromkeys(("--system-prompt",), ("--system",)),
    **dict.fromkeys(("--max-new-tokens", "--max-length"), ("--max-tokens",)),
    **dict.fromkeys(("--json-schema", "--guided-json"), ("--schema",)),
    **dict.fromkeys(("--torch-compile",), ("--compile",)),
    **dict.fromkeys(("--quantization", "--load-in-8bit", "--load-in-4bit", "--bits"), ("--quantize",)),
    **dict.fromkeys(("--filename", "--file-name", "--pattern", "--naming"), ("--name",)),
    **dict.fromkeys(("--cpu",), ("--gpus cpu",)),
    "--format": ("--to",),
}
"""What is typed -> the flags that may be meant; the first that the command has is named."""
