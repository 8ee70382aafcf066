//! SOCK_SEQPACKET listener and connections with peer credentials.
