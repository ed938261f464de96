"""What the operator of a coordinator may choose."""

from typing import ClassVar

from pydantic import Field

from shared.protocol import EPSILON_MIN, HEARTBEAT_S_MAX
from shared.serving.settings import MIB, ServiceSettings
from shared.serving.tokens import OfFile, OfSetting, Tokens


class Settings(ServiceSettings):
    doors: ClassVar[tuple[str, ...]] = ("push", "read", "admin")

    port: int = Field(8000, ge=0, le=65535, description="port to listen on")
    epsilon: float = Field(
        0.01,
        ge=EPSILON_MIN,
        lt=0.5,
        description="the promise: how wrong the median may be, in ranks",
    )
    heartbeat_s: float = Field(
        5.0,
        ge=0.05,
        le=HEARTBEAT_S_MAX,
        description="seconds after which a worker with no news says so; three without are silence",
    )
    rows_bytes_max: int = Field(
        256 * MIB,
        ge=MIB,
        description="bytes of memory that rows may take; a delta that needs more is refused",
    )
    push_token: OfSetting = Field(
        Tokens(), description="a worker that pushes must show it; unless set, none must"
    )
    push_token_file: OfFile = Field(Tokens(), description="a file with it, instead")
    admin_token: OfSetting = Field(
        Tokens(), description="whoever retires a worker must show it; unless set, nobody must"
    )
    admin_token_file: OfFile = Field(Tokens(), description="a file with it, instead")
