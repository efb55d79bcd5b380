"""The ports asked for are checked, and free ones are found."""

import socket

import pytest

from multitask_core.errors import ConfigError, ServeError
from multitask_serve.ports import Ports, accepts, choose_ports, client_host


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_zero_picks_three_different_free_ports():
    ports = choose_ports("127.0.0.1", Ports())
    assert len(set(ports)) == 3
    assert not any(accepts("127.0.0.1", port) for port in ports)


def test_a_given_port_is_kept():
    free = choose_ports("127.0.0.1", Ports())
    assert choose_ports("127.0.0.1", Ports(grpc=free.grpc)).grpc == free.grpc


@pytest.mark.parametrize("name", Ports._fields)
def test_a_taken_port_is_named_with_its_flag(taken, name):
    with pytest.raises(ServeError, match=rf"port {taken} on 127.0.0.1 is taken.*--{name}-port"):
        choose_ports("127.0.0.1", Ports(**{name: taken}))


def test_a_port_taken_on_one_address_is_taken_on_all(taken):
    with pytest.raises(ServeError, match="is taken"):
        choose_ports("0.0.0.0", Ports(http=taken))


def test_the_same_port_twice_is_refused():
    with pytest.raises(ConfigError, match="three different ports"):
        choose_ports("127.0.0.1", Ports(9000, 9000, 0))


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_refused(port):
    with pytest.raises(ConfigError, match=r"--http-port is .*65535"):
        choose_ports("127.0.0.1", Ports(http=port))


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(ServeError, match=r"cannot listen on 192\.0\.2\.1:0.*--host"):
        choose_ports("192.0.2.1", Ports())


@pytest.mark.parametrize(
    ("host", "reached_at"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("localhost", "localhost"), ("::1", "[::1]")],
)
def test_clients_reach_a_server_on_all_addresses_by_loopback(host, reached_at):
    assert client_host(host) == reached_at
