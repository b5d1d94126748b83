"""Of the logs, their readers and the sockets; without IO.

The numbers of stream processes are of their last status (projections/status.py), so each worker of
the api tells the same.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from butterbase.api.log_health import LogHealth, SeenStream, Slot, lag_bytes
from butterbase.api.metrics.exposition import Family, Labels
from butterbase.projections.status import LogStatus


def log_families(health: LogHealth, *, away_s_max: float) -> Iterator[Family]:
    yield from _of_slots(health.slots)
    leader = health.leader(away_s_max)
    # A container that is started again has the name and the process id of the one before.
    streams = {_stream_label(stream): stream for stream in reversed(health.streams)}
    yield from _of_streams(streams, leader)
    logs = [] if leader is None else [(leader, log) for log in leader.status.logs]
    yield from _of_logs(logs)
    yield from _of_projections(logs)
    yield from _of_realtime([log for _, log in logs])


def _of_slots(slots: list[Slot]) -> Iterator[Family]:
    def gauge(name: str, text: str, values: Iterable[float | None]) -> Family:
        labels = [{"database": slot.database} for slot in slots]
        return Family(f"slot_{name}", "gauge", text, zip(labels, values, strict=True))

    yield gauge("active", "Whether somebody reads the replication slot.", (s.active for s in slots))
    yield gauge(
        "retained_wal_bytes", "Log that the server keeps for it.", (s.retained_bytes for s in slots)
    )
    yield gauge(
        "unacknowledged_bytes",
        "Log behind the acknowledged position; the replay window is part of it.",
        (s.unacknowledged_bytes for s in slots),
    )
    yield gauge(
        "safe_wal_bytes",
        "Log that may be written until the slot is in danger of being lost.",
        (s.safe_wal_bytes for s in slots),
    )
    yield Family(
        "slot_wal_status",
        "gauge",
        "1 for what pg_replication_slots says; missing where there is no slot.",
        [({"database": s.database, "status": s.wal_status or "missing"}, 1) for s in slots],
    )


def _of_streams(streams: Mapping[str, SeenStream], leader: SeenStream | None) -> Iterator[Family]:
    def family(
        name: str, text: str, values: Iterable[float], kind: Literal["gauge", "counter"] = "gauge"
    ) -> Family:
        labels = [{"stream": label} for label in streams]
        return Family(name, kind, text, zip(labels, values, strict=True))

    seen = list(streams.values())
    statuses = [stream.status for stream in seen]
    yield family(
        "stream_seen_seconds", "Since the process told its status.", (s.age_s for s in seen)
    )
    yield family(
        "stream_leading",
        "1 for the process that reads the logs, 0 for others.",
        (stream is leader for stream in seen),
    )
    yield family(
        "stream_start_time_seconds",
        "When the process began, since the epoch.",
        (s.started_at.timestamp() for s in statuses),
    )
    yield family(
        "stream_resident_memory_bytes", "Memory of the process.", (s.rss_bytes for s in statuses)
    )
    yield family("realtime_sockets", "Open sockets.", (s.sockets.open for s in statuses))
    yield family(
        "realtime_frames_sent_total",
        "Frames written to sockets.",
        (s.sockets.frames_sent for s in statuses),
        "counter",
    )
    yield family(
        "realtime_frames_dropped_total",
        "Frames for sockets that were closing.",
        (s.sockets.frames_dropped for s in statuses),
        "counter",
    )


def _of_logs(logs: list[tuple[SeenStream, LogStatus]]) -> Iterator[Family]:
    labels = [_log_labels(log) for _, log in logs]

    def gauge(name: str, text: str, values: Iterable[float]) -> Family:
        return Family(f"log_{name}", "gauge", text, zip(labels, values, strict=True))

    yield gauge("connected", "Whether the log is being read.", (g.is_connected for _, g in logs))
    yield gauge(
        "lag_bytes",
        "Log that is not delivered to its readers.",
        (lag_bytes(*each) for each in logs),
    )
    yield gauge(
        "lag_seconds", "Age of the last commit, where more is to come.", (g.lag_s for _, g in logs)
    )
    resyncs = [log.resync_count for _, log in logs]
    text = "How often the log had to begin anew, with a gap."
    yield Family("log_resyncs_total", "counter", text, zip(labels, resyncs, strict=True))


def _of_projections(logs: list[tuple[SeenStream, LogStatus]]) -> Iterator[Family]:
    found = [(stream, log, each) for stream, log in logs for each in log.projections]
    labels = [_log_labels(log) | {"projection": each.name} for _, log, each in found]

    def gauge(name: str, text: str, values: Iterable[float]) -> Family:
        return Family(f"projection_{name}", "gauge", text, zip(labels, values, strict=True))

    yield gauge(
        "lag_bytes",
        "Log that is not applied.",
        (max(0, stream.wal_lsn - each.position) for stream, _, each in found),
    )
    yield gauge(
        "lag_seconds",
        "Age of the oldest commit that is not applied.",
        (each.lag_s for *_, each in found),
    )
    yield gauge(
        "queued_changes",
        "Changes that wait in memory.",
        (each.waiting_changes for *_, each in found),
    )
    yield gauge(
        "queued_bytes", "Of those, as the log has them.", (each.waiting_bytes for *_, each in found)
    )
    yield gauge(
        "behind",
        "1 while more waits in the log than in memory.",
        (each.is_behind for *_, each in found),
    )


def _of_realtime(logs: list[LogStatus]) -> Iterator[Family]:
    found = [(_log_labels(log), log.realtime) for log in logs if log.realtime is not None]
    yield Family(
        "realtime_subscribers",
        "gauge",
        "Channels that listen to changes.",
        [(labels, each.subscribers) for labels, each in found],
    )
    yield Family(
        "realtime_queued_changes",
        "gauge",
        "Changes that wait to be sent.",
        [(labels, each.queued_changes) for labels, each in found],
    )


def _stream_label(stream: SeenStream) -> str:
    return f"{stream.status.host}:{stream.status.pid}"


def _log_labels(log: LogStatus) -> Labels:
    return {"database": log.database} | ({} if log.app_id is None else {"app": log.app_id})
