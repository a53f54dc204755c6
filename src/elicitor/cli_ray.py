"""Options of the commands that can use a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from elicitor.errors import ConfigError

if TYPE_CHECKING:
    from elicitor.distributed import RayOptions

Address = Annotated[
    str | None, typer.Option("--ray", metavar="ADDRESS", help="Use a Ray cluster: local, auto or HOST:PORT.")
]
Workers = Annotated[
    int | None,
    typer.Option("--ray-workers", help="Workers, one model each [default: as many as there is work and room for]."),
]
Cpus = Annotated[float, typer.Option("--ray-cpus", help="Processors of each worker.")]
Gpus = Annotated[float, typer.Option("--ray-gpus", help="GPUs of each worker; 0.5 puts two on one.")]


def ray_options(address: str | None, *, workers: int | None, cpus: float, gpus: float) -> RayOptions | None:
    """The options of a cluster, or None if none is to be used.

    Raises:
        ConfigError: If there are options and no cluster, or a worker would take nothing.
    """
    if address is None:
        if workers is not None or cpus != 1.0 or gpus != 0.0:
            raise ConfigError("--ray-workers, --ray-cpus and --ray-gpus need a cluster", fix="add --ray local or auto")
        return None
    from elicitor.distributed import RayOptions

    return RayOptions(address, workers=workers, cpus=cpus, gpus=gpus)
