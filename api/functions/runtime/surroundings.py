"""What all processes that run functions share."""

from msgspec import Struct

from butterbase.api.functions.runtime.asking import Services
from butterbase.api.functions.runtime.jail.spawner import Spawner
from butterbase.api.functions.runtime.seams import Recorder


class Surroundings(Struct, frozen=True):
    spawner: Spawner
    services: Services
    recorder: Recorder
    api_url: str
    memory_mb_max: int
