from support.commands import content, ended_processes, here, out, own_folders, pictures, run, style  # noqa: F401
from support.networks import one_thread  # noqa: F401
