"""Settings of reinforcement learning."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from elicitor.train.settings import TrainSettings


class RlSettings(TrainSettings):
    """How a policy is trained against a reward; ``batch_size`` counts responses in one pass, epochs do not count."""

    PAGE: ClassVar[str] = "docs/reward.md"

    method: Literal["lora"] = Field("lora", description="the policy is an adapter; without it, it is the reference")
    algorithm: Literal["grpo", "rloo"] = Field("grpo", description="TRL's GRPOTrainer or RLOOTrainer")
    steps: int = Field(40, ge=1, description="optimizer steps")
    learning_rate: float = Field(2e-4, gt=0, description="highest learning rate; it warms up, then falls")
    schedule: Literal["linear", "cosine", "constant"] = Field("constant", description="how the learning rate falls")
    batch_size: int = Field(8, ge=1, description="responses in one forward pass of one device")
    gradient_accumulation: int = Field(2, ge=1, description="forward passes in one optimizer step")
    group_size: int = Field(8, ge=2, description="responses to one prompt that are compared with one another")
    max_new_tokens: int = Field(48, ge=1, description="tokens of a response")
    max_prompt_tokens: int = Field(256, ge=1, description="longer prompts are left out")
    temperature: float = Field(1.0, gt=0, description="divides the logits when responses are drawn")
    beta: float = Field(0.04, ge=0, description="weight of the divergence from the start in the loss; 0: none")
    max_kl: float = Field(30.0, gt=0, description="stop when a response is this far from the start, in nats")
    eval_prompts: int = Field(16, ge=1, description="held-out prompts that choose the checkpoint")
    test_prompts: int = Field(48, ge=2, description="other held-out prompts on which start and result are compared")
    eval_samples: int = Field(4, ge=1, description="responses to each held-out prompt")
    eval_steps: int = Field(10, ge=1, description="optimizer steps between evaluations")
    vllm: Literal["off", "colocate", "server"] = Field(
        "off", description="generate with vLLM, in this process or a server"
    )
    vllm_server: str | None = Field(None, description="address of the vLLM server")

    @model_validator(mode="after")
    def _check_groups(self) -> RlSettings:
        if self.batch_size * self.gradient_accumulation % self.group_size:
            raise ValueError(
                f"batch_size * gradient_accumulation = {self.batch_size * self.gradient_accumulation} must be a multiple "
                f"of group_size = {self.group_size}"
            )
        return self
