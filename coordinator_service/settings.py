"""What the operator of a coordinator may choose."""

from pydantic import Field

from shared.protocol import EPSILON_MIN, HEARTBEAT_S_MAX
from shared.serving.settings import ServiceSettings


class Settings(ServiceSettings):
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
