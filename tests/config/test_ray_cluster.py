"""An address where no cluster of Ray is, is refused at once. What a cluster has is tested in workers/test_ray.py."""

import socket

import pytest

from fastgen.config import ray_cluster
from fastgen.errors import SettingsError

pytest.importorskip("ray")


@pytest.mark.parametrize("variable", [False, True])
def test_an_address_where_no_cluster_is(monkeypatch, variable):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nothing listens
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        for address, said in {
            nobody: "no Ray cluster answers there",
            "no-such-host.invalid:6379": "no Ray cluster answers there",
            "http://127.0.0.1:8265": "give HOST:PORT of the cluster, such as 10.0.0.1:6379; that of the dashboard",
            "10.0.0.1": "give HOST:PORT of the cluster",
        }.items():
            monkeypatch.setenv("RAY_ADDRESS", address if variable else "")
            with pytest.raises(SettingsError, match=f"--ray-address {address}: {said}"):
                ray_cluster.connect("" if variable else address)
