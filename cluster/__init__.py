"""The processes of one run: how they meet, agree, watch over each other and stop together.

One process is the simplest case of many and takes the same way. Everything here goes through the
key-value store of JAX's coordination service, never through a collective of the devices, so that a
device that hangs cannot keep the processes from saying so.
"""
