"""What keeps the last of Ray's servers off the network in a local stack."""

from ray.serve._private import replica

WORKER_SETUP_HOOK = "deploy.loopback.listen_on_loopback_only"


def listen_on_loopback_only() -> None:
    """Ray calls it at the start of every worker process of the job (`worker_process_setup_hook`).

    In Ray's laptop mode everything listens on 127.0.0.1 but one: a Serve replica opens its port for calls between deployments
    on `[::]`, written there in full (ray 2.60, serve/_private/replica.py). A test lists all listeners and so guards this.
    """
    bind = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: bind(server, address.replace("[::]", "127.0.0.1"))
