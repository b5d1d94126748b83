"""Settings of functions: the pool of processes that run them, and their limits."""

from typing import Annotated

from msgspec import Meta

from butterbase.sql.settings import SettingGroup

MEMORY_MB = 128


class FunctionsSettings(SettingGroup, frozen=True):
    functions_deno: Annotated[
        str | None, Meta(description="the Deno executable; default the one of PyPI's deno")
    ] = None
    functions_ready: Annotated[
        int, Meta(description="processes kept booted for functions that are not loaded", ge=0)
    ] = 4
    functions_processes: Annotated[
        int, Meta(description="processes for functions, of all apps together", ge=1, le=500)
    ] = 32
    functions_processes_per_app: Annotated[
        int, Meta(description="the same for one app", ge=1, le=500)
    ] = 16
    functions_boots: Annotated[
        int, Meta(description="processes that boot at a time", ge=1, le=64)
    ] = 2
    functions_queue: Annotated[
        int, Meta(description="calls of one app that wait for a process", ge=0)
    ] = 200
    functions_queue_s: Annotated[
        float, Meta(description="longest that a call waits for a process", gt=0)
    ] = 10.0
    functions_idle_s: Annotated[
        float, Meta(description="a loaded process without calls ends after this", gt=0)
    ] = 300.0
    functions_memory_mb_max: Annotated[
        int, Meta(description="most memory that a function may be given", ge=16, le=4096)
    ] = 256
    functions_warm_memory_mb: Annotated[
        int, Meta(description="memory of all processes; those without calls end beyond it", ge=64)
    ] = 2048
    functions_recycle_calls: Annotated[
        int, Meta(description="calls after which a process is replaced", ge=1)
    ] = 50_000
    functions_recycle_s: Annotated[
        float, Meta(description="age at which a process is replaced", gt=0)
    ] = 3600.0
    functions_wall_ms_max: Annotated[
        int, Meta(description="longest that a function may be given for a call", ge=10)
    ] = 400_000
    functions_egress_timeout_s: Annotated[
        float, Meta(description="seconds to connect to a host that a function asks", gt=0)
    ] = 10.0
    functions_egress_bytes: Annotated[
        int, Meta(description="largest answer to a function's own request", ge=1024)
    ] = 64 * 1024**2
    functions_api_url: Annotated[
        str | None,
        Meta(description="where the functions process reaches the api; default http://HOST:PORT"),
    ] = None
    functions_uids: Annotated[
        str,
        Meta(description="user ids for the processes, FIRST-LAST, one each, when started as root"),
    ] = "60578-61183"
    functions_trusted_pages: Annotated[
        bool,
        Meta(description="whether pages that functions answer with share the api's origin"),
    ] = False
    functions_bundle_bytes: Annotated[
        int, Meta(description="largest script that a function may come to", ge=1024, le=12_000_000)
    ] = 4 * 1024**2
    functions_jobs: Annotated[
        int, Meta(description="invocations by triggers that one app runs at a time", ge=1, le=500)
    ] = 16
    functions_records_days: Annotated[
        int, Meta(description="days that records of invocations and their logs are kept", ge=1)
    ] = 7
    functions_dead_days: Annotated[
        int, Meta(description="the same of invocations that were given up", ge=1)
    ] = 30
