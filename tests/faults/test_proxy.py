"""The proxy does to a connection what it says, and nothing else."""

import socket
import threading
from collections.abc import Iterator

import pytest

from stream.broker import _free_port
from tests.faults.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """Port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(4096):
                        connection.sendall(data)
                except OSError:
                    return

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(_free_port(), echo) as proxy:
        yield proxy


def connected(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=30)
    assert answer(connection, b"hello") == b"hello"
    return connection


def answer(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        part = connection.recv(65536)
        assert part, "closed"
        got += part
    return got


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(0.3)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(30)
    return False


def test_everything_arrives_in_both_directions_and_in_order(proxy: Proxy) -> None:
    data = bytes(range(256)) * 4000
    with connected(proxy) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        got = b""
        while len(got) < len(data):
            got += connection.recv(65536)
        sender.join(30)
    assert got == data


def test_a_stall_keeps_the_connection_and_what_it_held_back_arrives_after_it(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        proxy.stall()
        connection.sendall(b"held back")
        assert is_silent(connection)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as another:
            another.sendall(b"new")
            assert is_silent(another)
            proxy.resume()
            assert another.recv(100) == b"new"
        assert connection.recv(100) == b"held back"


def test_a_delay_holds_everything_back_for_a_while(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        proxy.delay(1.0)
        connection.sendall(b"late")
        assert is_silent(connection)
        assert connection.recv(100) == b"late"


def test_a_cut_resets_the_connections_there_are_and_lets_new_ones_through(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connected(proxy) as connection:
        assert answer(connection, b"again") == b"again"


def test_refused_is_refused_until_it_accepts_again(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=30)
    proxy.accept()
    with connected(proxy) as connection:
        assert answer(connection, b"again") == b"again"


def test_without_a_target_connections_end() -> None:
    with (
        Proxy(_free_port(), _free_port()) as nowhere,
        socket.create_connection(("127.0.0.1", nowhere.port), timeout=30) as connection,
    ):
        assert connection.recv(1) == b""
