"""What the local stack should look like at its first start: the file that people edit, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from control_plane.errors import InvalidDefinition
from control_plane.topology import MONOLITH, SERVICES

DEPLOYMENTS: tuple[str, ...] = (*SERVICES, MONOLITH)


class DeploymentSpec(BaseModel):
    """Size of one deployment and of its replicas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: Annotated[int, Field(ge=0)]  # at the first start; later ones keep what was set since
    min: Annotated[int, Field(ge=0)] = 1  # autoscaling keeps at least these
    max: Annotated[int, Field(ge=1, le=50)] = 6
    slots: Annotated[int, Field(ge=1)] = 16  # requests that one replica serves at a time
    stream_slots: Annotated[int, Field(ge=0)] = 16  # open streams of one replica

    @model_validator(mode="after")
    def _in_order(self) -> DeploymentSpec:
        if not (self.min <= self.max and self.replicas <= self.max):
            raise ValueError(f"replicas {self.replicas} and min {self.min} may not exceed max {self.max}")
        return self


class DemoSpec(BaseModel):
    """Demo traffic: an open model, so that a slow suite does not slow its users down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: Annotated[float, Field(ge=0, le=100)] = 1.0  # multiple of the usual rate, about 90 requests/s; 0 is none


class StackSpec(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deployments: dict[str, DeploymentSpec]
    demo: DemoSpec = DemoSpec()

    @model_validator(mode="after")
    def _all_named(self) -> StackSpec:
        missing = [name for name in DEPLOYMENTS if name not in self.deployments]
        unknown = [name for name in self.deployments if name not in DEPLOYMENTS]
        if missing or unknown:
            raise ValueError(f"missing deployments {missing}, unknown deployments {unknown}")
        return self


def load_specification(path: Path) -> StackSpec:
    """Reads the file. Raises InvalidDefinition with file, and field or line."""
    try:
        return StackSpec.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError as error:
        raise InvalidDefinition(f"{path} does not exist: it says how many replicas to run") from error
    except yaml.YAMLError as error:
        raise InvalidDefinition(f"{path}: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidDefinition(f"{path}: {field}: {first['msg']}") from error
