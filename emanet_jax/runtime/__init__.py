"""The process and its machines: devices, files, logs, signals, progress."""
