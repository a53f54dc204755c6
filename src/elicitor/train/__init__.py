"""Training on found labels: thin layers over TRL and PEFT. Nothing here imports torch before a training begins."""
