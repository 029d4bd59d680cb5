from made import here  # noqa: F401
from support.networks import one_thread  # noqa: F401
