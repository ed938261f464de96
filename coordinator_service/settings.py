"""What the operator of a coordinator may choose."""

from typing import ClassVar

from pydantic import Field

from shared.protocol import EPSILON_MIN, HEARTBEAT_S_MAX, HEARTBEAT_S_MIN
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
        ge=HEARTBEAT_S_MIN,
        le=HEARTBEAT_S_MAX,
        description="seconds after which a worker with no news says so; three without are silence",
    )
    # At epsilon 1 % that is 12,400 sources. Full of rows of two knots, and of such as are as long
    # as can be, by what `rows.py` counts:
    #   64 MiB    8,000 and 13 rows     a median 0.04 and 0.10 s; 31 and 54 MiB resident, with an
    #                                   explanation 85 and 119; shares at 1,000 places 3.1 and 0.1 s
    #   256 MiB   32,000 and 55 rows    a median 0.28 and 0.84 s; 95 and 201 MiB resident, with an
    #                                   explanation 175 and more; shares 35 and 1.1 s
    rows_bytes_max: int = Field(
        512 * MIB,
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
