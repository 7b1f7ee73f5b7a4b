"""How long carspotter, timm's train.py and a plain PyTorch loop take to the same accuracy."""
