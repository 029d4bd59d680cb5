"""Build for aarch64 and test there, on an x86-64 machine: a cross compiler, and QEMU as the processor."""
