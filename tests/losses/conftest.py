from support.networks import bundled, bundled64, one_thread, vgg16, vgg16_64, weights_read_once  # noqa: F401
