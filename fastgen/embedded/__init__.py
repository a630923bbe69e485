"""The models that ship with the package, the world they know, and the scripts that train them.

tiny-flux/    a complete FLUX.1 folder: draws and edits scenes of flat shapes; its README.md says how well
tiny-vlm/     an idefics3 captioner of such scenes; likewise
scenes/       the world: drawing, describing, editing and reading scenes
train/        python -m fastgen.embedded.train {vae,flux,vlm}
score.py      python -m fastgen.embedded.score RUN: do the pictures of a run show what its prompts said?
captioner.py  the VLM in this process
demo.py       `fastgen demo`
"""
