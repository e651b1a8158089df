"""The bytes of the FUSE protocol: decode requests and encode replies, purely over buffers."""
