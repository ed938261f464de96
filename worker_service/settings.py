"""What the operator of a worker may choose."""

import socket
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar, Literal

from pydantic import AnyHttpUrl, Field, ValidationInfo, field_validator

from shared.protocol import A_NAME, COARSEST, EPSILON_MIN, NAME_MAX, is_name
from shared.serving.settings import MIB, ServiceSettings
from shared.serving.tls import CertificateFile, Trust
from shared.serving.tokens import OfFile, OfSetting, Tokens


class Settings(ServiceSettings):
    doors: ClassVar[tuple[str, ...]] = ("ingest", "read")

    port: int = Field(8001, ge=0, le=65535, description="port to listen on")
    coordinator_url: str = Field(
        "http://127.0.0.1:8000", description="where the coordinator listens"
    )
    tls_ca: CertificateFile = Field(
        "",
        description="file with the certificates, PEM, of whom to trust about the coordinator; "
        "unless set, whom the certifi package does",
    )
    worker_name: str = Field(
        "",
        max_length=NAME_MAX,
        description="a label; unless set, the host's name with the port, or with the slot of the "
        "data directory",
    )
    body_bytes_max: int = Field(
        32 * MIB, ge=1024, le=1024 * MIB, description="bytes of a request's body, at most"
    )
    digest_rank_error: float = Field(
        0.0005,
        ge=EPSILON_MIN * COARSEST,
        lt=0.5,
        description="of the worker's own digests; at most a twentieth of the coordinator's epsilon",
    )
    linger_s: float = Field(
        1.0, ge=0.01, le=60, description="seconds without news until the coordinator is told all"
    )
    request_s_max: float = Field(
        5.0, gt=0, le=60, description="seconds that a push to the coordinator may take"
    )
    backoff_s_max: float = Field(
        5.0, gt=0, le=60, description="seconds between two tries to reach the coordinator, at most"
    )
    answer_s_max: float = Field(
        60.0, gt=0, le=3600, description="seconds that a client waits for its 202, at most"
    )
    goodbye_s_max: float = Field(
        5.0, gt=0, le=60, description="seconds at the end to tell the coordinator the last values"
    )
    when_cut_off: Literal["count", "refuse"] = Field(
        "count", description="what to do with values while the coordinator is certainly unaware"
    )
    idempotency_keys_max: int = Field(
        65_536, ge=1, le=10_000_000, description="how many Idempotency-Keys are remembered"
    )
    # A thousand take 11 to 15 MiB with one value each, 92 with a thousand, 310 to 370 with many.
    # The courier walks over them in 2 to 5 ms whenever it looks what is due, over ten thousand in
    # 19. And each has its heartbeat: see "Many streams" in docs/operations.md.
    streams_max: int = Field(
        1000, ge=1, description="streams, at most; a batch of one more is told 507"
    )
    ingest_token: OfSetting = Field(
        Tokens(), description="whoever sends values must show it; unless set, nobody must"
    )
    ingest_token_file: OfFile = Field(Tokens(), description="a file with it, instead")
    push_token: OfSetting = Field(
        Tokens(), description="is shown to the coordinator, where that asks for one"
    )
    push_token_file: OfFile = Field(Tokens(), description="a file with it, instead")

    @field_validator("coordinator_url")
    @classmethod
    def _is_url(cls, given: str) -> str:
        url = AnyHttpUrl(given)
        if url.username or url.password or url.query or url.fragment:
            raise ValueError("has no user, no ? and no #, as it is shown in logs")
        return str(url).rstrip("/")

    @field_validator("tls_ca")
    @classmethod
    def _is_of_use(cls, given: str, info: ValidationInfo) -> str:
        if given and str(info.data.get("coordinator_url", "")).startswith("http:"):
            raise ValueError(
                "who is to be trusted is asked over https only: begin "
                "MEDIAN_COORDINATOR_URL with https://"
            )
        return given

    @field_validator("worker_name")
    @classmethod
    def _is_printable(cls, given: str) -> str:
        if given and not is_name(given):
            raise ValueError(f"a name has {A_NAME}")
        return given

    @cached_property
    def trust(self) -> Trust:
        """Whom it believes to be the coordinator."""
        return Trust(self.coordinator_url, self.tls_ca)

    def files(self) -> list[dict[str, Callable[[], None]]]:
        trusts = [{"tls_ca": self.trust.again}] if self.tls_ca else []
        return super().files() + trusts

    @property
    def name(self) -> str:
        return self.worker_name or f"{host_name()}-{self.port}"[-NAME_MAX:]


def host_name() -> str:
    """The host's, with a question mark for whatever no name has."""
    return "".join(one if is_name(one) else "?" for one in socket.gethostname())
