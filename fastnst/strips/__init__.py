"""The objective of a large image, evaluated in strips of rows by one process or by several ranks."""
