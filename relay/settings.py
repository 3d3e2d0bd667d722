"""The environment, and nothing else, sets the relay up. This is the only module that reads it.

`Settings` is frozen, complete and never prints a secret; `load_settings` tells every fault at once.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from relay.contract import DESTINATION
from relay.dispatch.quota import Quota
from relay.errors import Fault, SettingsError


def _site(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+(?:/[^\s?#]*)?", url):
        raise ValueError("must be the base URL of the site, as https://acme.atlassian.net")
    return url.rstrip("/")


def _quota(text: str) -> str:
    Quota.parse(text)
    return text


def _names(value: Any) -> Any:
    return frozenset(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[frozenset[str], BeforeValidator(_names)]
Site = Annotated[str, AfterValidator(_site)]


class Settings(BaseModel):
    """Everything that can be set: each field's alias is the environment variable, its description the documentation."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    database_url: str = Field(
        "sqlite:///relay.db",
        alias="DATABASE_URL",
        description="Where webhooks and events are kept: SQLite or PostgreSQL.",
    )
    port: int = Field(8080, alias="PORT", ge=0, le=65535, description="The port that `relay serve` listens on.")
    web_concurrency: int = Field(2, alias="WEB_CONCURRENCY", ge=1, le=64, description="Web processes.")
    threads: int = Field(
        8,
        alias="RELAY_THREADS",
        ge=1,
        le=256,
        description="Threads of each web process, for what takes longer than a webhook.",
    )
    mappings: Path | None = Field(
        None,
        alias="RELAY_MAPPINGS",
        description="Folder of mapping files; unset: `./mappings` if there, else the bundled ones.",
    )
    compass_url: Site | None = Field(
        None, alias="COMPASS_URL", description="Base of your Atlassian site, as `https://acme.atlassian.net`."
    )
    compass_cloud_id: str | None = Field(None, alias="COMPASS_CLOUD_ID", description="The site's cloud id.")
    compass_email: str | None = Field(None, alias="COMPASS_EMAIL", description="The account whose API token is used.")
    compass_api_token: SecretStr | None = Field(
        None,
        alias="COMPASS_API_TOKEN",
        description="That account's API token (id.atlassian.com, Security, API tokens).",
    )
    compass_quota: Annotated[str, AfterValidator(_quota)] = Field(
        "100/60s", alias="COMPASS_QUOTA", description="Requests per rolling window that Compass takes of one account."
    )
    admin_token: SecretStr | None = Field(
        None,
        alias="RELAY_ADMIN_TOKEN",
        description="Opens `/events/`; unset: closed.",
    )
    dispatcher: Literal["on", "off"] = Field(
        "on", alias="RELAY_DISPATCHER", description="`off`: this web process only takes in; `relay worker` delivers."
    )
    retention_days: int = Field(
        30, alias="RELAY_RETENTION_DAYS", ge=1, description="Days that settled webhooks and events are kept."
    )
    max_body: int = Field(
        1_048_576, alias="RELAY_MAX_BODY", ge=1024, le=64 * 1_048_576, description="The largest body taken, in bytes."
    )
    allow_unsigned: Names = Field(
        frozenset(),
        alias="RELAY_ALLOW_UNSIGNED",
        description="Sources, separated by commas, accepted without a signature.",
    )
    trusted_proxies: int | None = Field(
        None,
        alias="RELAY_TRUSTED_PROXIES",
        ge=0,
        le=10,
        description="How many `X-Forwarded-*` hops to believe; unset: 1 on a platform that sets `DYNO`, else 0.",
    )
    release_url: Site | None = Field(
        None,
        alias="RELEASE_URL",
        description="Base of your UrbanCode Release server, if calendar events go there.",
    )
    release_user: str | None = Field(None, alias="RELEASE_USER", description="The user who writes to its calendar.")
    release_password: SecretStr | None = Field(None, alias="RELEASE_PASSWORD", description="That user's password.")
    release_date_unit: Literal["ms", "s"] = Field(
        "ms", alias="RELEASE_DATE_UNIT", description="In what that server counts its dates: `ms` or `s`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", alias="RELAY_LOG_LEVEL", description="The least that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", alias="RELAY_LOG_FORMAT", description="`auto`: readable on a terminal, JSON lines otherwise."
    )
    dyno: str | None = Field(
        None, alias="DYNO", description="Set by a Heroku-style platform; tells that there is one proxy."
    )
    environ: Mapping[str, str] = Field(
        {}, repr=False, description="Where mapping files find their secrets and settings."
    )

    @property
    def hops(self) -> int:
        """How many proxies' `X-Forwarded-*` entries are believed."""
        if self.trusted_proxies is not None:
            return self.trusted_proxies
        return 1 if self.dyno else 0

    @property
    def mappings_folder(self) -> Path:
        """The folder of mapping files that counts."""
        return mappings_folder(self.environ)

    def quota(self, destination: str = DESTINATION) -> Quota:
        """How many requests a destination takes: COMPASS_QUOTA, and plenty where none is documented."""
        return Quota.parse(self.compass_quota) if destination == DESTINATION else PLENTY


PLENTY = Quota(600, 60_000)
"""The quota of a destination that documents none, so that a backlog does not come down on it all at once."""

BUNDLED = next(
    (
        folder
        for folder in (Path(__file__).parent / "bundled_mappings", Path(__file__).parents[1] / "mappings")
        if folder.is_dir()
    ),
    Path("mappings"),
)
"""The mapping files that come with the package."""


def mappings_folder(environ: Mapping[str, str]) -> Path:
    """RELAY_MAPPINGS if it is set, else `./mappings` if that is there, else the bundled files."""
    if given := environ.get("RELAY_MAPPINGS", "").strip():
        return Path(given)
    here = Path("mappings")
    return here if here.is_dir() else BUNDLED


SET_BY_OTHERS = frozenset({"DYNO"})
"""What the platform sets; nothing for a person to set."""

NEEDED_TO_DELIVER = ("COMPASS_URL", "COMPASS_CLOUD_ID", "COMPASS_EMAIL", "COMPASS_API_TOKEN")
NEEDED_WITH_RELEASE = ("RELEASE_USER", "RELEASE_PASSWORD")


def environment() -> dict[str, str]:
    """The process's environment, for those who hand it on."""
    return dict(os.environ)


def load_settings(environ: Mapping[str, str] | None = None, *, delivers: bool = False) -> Settings:
    """The settings of this environment (the process's own, unless one is given).

    With `delivers`, what sending to Compass needs must be set too. Raises SettingsError with all faults.
    """
    environ = environment() if environ is None else environ
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    faults: list[Fault] = []
    settings = None
    try:
        settings = Settings.model_validate({**given, "environ": environ})
    except ValidationError as error:
        # Not the library's own text: it quotes values, and a value may be a secret in the wrong place.
        faults += [Fault(str(problem["loc"][0]), _sentence(problem["msg"])) for problem in error.errors()]
    if delivers and given.get("RELAY_DISPATCHER") != "off":
        faults += [Fault(name, "is not set") for name in NEEDED_TO_DELIVER if name not in given]
        if "RELEASE_URL" in given:
            needed = "is not set, but RELEASE_URL is"
            faults += [Fault(name, needed) for name in NEEDED_WITH_RELEASE if name not in given]
    if settings is None or faults:
        raise SettingsError(sorted(faults, key=lambda fault: fault.where))
    return settings


def variables() -> dict[str, str]:
    """Every environment variable of the relay itself, with its sentence, in the order of this file."""
    return {
        field.alias: field.description or ""
        for field in Settings.model_fields.values()
        if field.alias is not None and field.alias not in SET_BY_OTHERS
    }


def effective(settings: Settings) -> dict[str, str]:
    """The value of every variable as it counts, with secrets masked."""
    shown = {}
    for name, field in Settings.model_fields.items():
        if field.alias in variables():
            shown[str(field.alias)] = _shown(getattr(settings, name))
    shown["DATABASE_URL"] = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:********@", settings.database_url)
    shown["RELAY_MAPPINGS"] = str(settings.mappings_folder)
    shown["RELAY_TRUSTED_PROXIES"] = str(settings.hops)
    return shown


def _shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case frozenset():
            return ",".join(sorted(value))
        case _:
            return str(value)  # SecretStr shows as asterisks


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ")
