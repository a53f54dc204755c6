"""An example at the end of every help text, all in one place so that they read as one.

A test parses each of them with the command it stands under, and refuses a command without one.
"""

from __future__ import annotations

import typer

EXAMPLES = {
    "label": "elicitor label reviews.jsonl --task sentiment --model hf:Qwen/Qwen2.5-7B -o runs/reviews",
    "eval": "elicitor eval runs/reviews --test held-out.jsonl --conditions all",
    "eval reward": "elicitor eval reward models/reward models/golden --test held-out.jsonl",
    "eval winrate": "elicitor eval winrate adapter:models/policy bundled --prompts prompts.jsonl --judge models/reward",
    "audit": "elicitor audit runs/reviews --seeds 1,2 --column source --abstain",
    "ablate": "elicitor ablate claims.jsonl --task truthfulqa --init golden,wrong --consistency off",
    "quickstart": "elicitor quickstart -o runs/quickstart",
    "models": "elicitor models --json",
    "env": "elicitor env",
    "cache info": "elicitor cache info",
    "cache clear": "elicitor cache clear",
    "sample-poems": "elicitor sample-poems poems.jsonl --n 128",
    "sample-solutions": "elicitor sample-solutions hf:openai/gsm8k:main@test --k 4 --limit 100 -o solutions.jsonl",
    "serve-hf": "elicitor serve-hf --model hf:Qwen/Qwen2.5-7B --port 8000",
    "train sft": "elicitor train sft runs/reviews -o models/reviews",
    "train compare": "elicitor train compare runs/reviews --test held-out.jsonl --seeds 0,1,2 -o models/compared",
    "train iterate": "elicitor train iterate claims.jsonl --task truthfulqa --batch-size 256 -o runs/loop",
    "train reward": "elicitor train reward runs/pairs --rest unlabelled.jsonl -o models/reward",
    "train rl": "elicitor train rl prompts.jsonl --reward models/reward -o models/policy",
    "report": "elicitor report runs/reviews --gold reviews.jsonl -o reviews.html",
    "plot": "elicitor plot runs/suite-small runs/suite-large --figure scaling -o scaling.pdf",
    "watch": "elicitor watch runs/reviews --open",
    "control": "elicitor control runs/reviews pause",
    "review": "elicitor review runs/reviews --mark q17-2=wrong",
    "export": "elicitor export runs/pairs --format preference -o exported/pairs",
}


def add_examples(app: typer.Typer, prefix: str = "") -> None:
    """Put the example of each command under its help text; call it when all commands are there."""
    for command in app.registered_commands:
        example = EXAMPLES.get(f"{prefix}{command.name}")
        if example and not command.epilog:
            # \b keeps the lines as they are, so that a long example can be copied.
            command.epilog = f"\b\nExample:\n  {example}"
    for group in app.registered_groups:
        if group.typer_instance is not None:
            add_examples(group.typer_instance, f"{prefix}{group.name} ")
