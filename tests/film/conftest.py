from support.networks import one_thread  # noqa: F401
