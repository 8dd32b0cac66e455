"""The rules for addresses that came in a message, or from a server that a message named.

A forged event must not make this service call its own machine, its neighbours or the place where
a cloud keeps the machine's credentials. So such an address is looked at twice: its text here
(`parse`, `Origins`), and what its host name resolves to when the connection is made
(`check_address`), which then goes to the address that was checked and to no other.

Pure. Sources: the WHATWG URL standard (hosts that end in a number), the Fetch standard (port
blocking), RFC 6890 with the registries of special-purpose addresses.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from urllib.parse import urlsplit

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Reason(Enum):
    """Why an address is refused; the value completes `it ...`."""

    UNREADABLE = "cannot be read as an address"
    CHARACTERS = "holds a space, a control character or a backslash"
    SCHEME = "does not begin with http:// or https://"
    LOGIN = "holds a user name or password"
    NO_HOST = "names no host"
    UNICODE = "has a host that is not plain ASCII (international names are written as xn--...)"
    HOST_NAME = "has a host with characters that no host name has"
    TRAILING_DOT = "has a host that ends in a dot"
    ODD_NUMBER = "writes an IP address in an unusual way"
    ZONE = "names a network interface (a zone id)"
    PORT = "names a port that is never HTTP's"
    LOCAL_NAME = "names this machine"
    METADATA = "leads to the machine's own metadata service"
    LOOPBACK = "leads to this machine"
    PRIVATE = "leads into a private network"
    LINK_LOCAL = "leads to a link-local address"
    MULTICAST = "leads to a multicast address"
    RESERVED = "leads to an address that is nobody's"
    TUNNEL = "leads to an address that hides another one"
    NOT_ALLOWED = "is not among MESSAGE_VAULT_ORIGINS"


class Refused(Exception):
    """An address that will not be called. Its text holds no address."""

    def __init__(self, reason: Reason) -> None:
        """Keep the `reason`."""
        super().__init__(f"it {reason.value}")
        self.reason = reason


class Reach(IntEnum):
    """How far an address may lead. Link-local, metadata, multicast and reserved ones: never."""

    PUBLIC = 1  # the Internet
    PRIVATE = 2  # and private networks
    LOCAL = 3  # and this machine


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port, in one spelling.

    >>> str(parse("HTTPS://Bucket.Example.org/youruser/1.mp4?X-Signature=abc"))
    'https://bucket.example.org'
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """As it is written in MESSAGE_VAULT_ORIGINS."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (
            f":{self.port}" if self.port != _PORTS[self.scheme] else ""
        )


_PORTS = {"http": 80, "https": 443}
_UNFIT = re.compile(r"[\x00-\x20\x7f\\]")
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_LONGEST_HOST_NAME = 253
_CANONICAL_V4 = re.compile(r"(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}", re.ASCII)
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII)
# Ports of other protocols, a few of whose servers obey lines that they find in an HTTP request
# (SMTP, Redis, memcached). The first row is from the Fetch standard.
_BAD_PORTS = frozenset(
    (0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101,
     102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427,
     465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990,
     993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667,
     6668, 6669, 6679, 6697, 10080,
     2181, 2375, 3306, 5432, 6379, 11211, 27017)
)  # fmt: skip
_LOCAL_NAMES = (
    "localhost",
    "localhost.localdomain",
    "ip6-localhost",
    "ip6-loopback",
    "broadcasthost",
)
_METADATA_NAMES = (
    "metadata", "metadata.google.internal", "metadata.goog", "instance-data",
    "instance-data.ec2.internal", "metadata.azure.internal", "metadata.tencentyun.com",
    "metadata.platformequinix.com", "metadata.packet.net",
)  # fmt: skip
# Where clouds answer questions about the machine, credentials included. Those inside 169.254/16
# are link-local already and stand here for the better sentence.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254", "169.254.169.253", "169.254.170.2", "169.254.170.23", "169.254.0.23",
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23",
        "fd00:ec2::253", "fd20:ce::254", "fe80::a9fe:a9fe",
    )
)  # fmt: skip
# What is not public without being in the way of an on-premise network.
_SHARED = ipaddress.ip_network("100.64.0.0/10")  # carriers' NAT, also Kubernetes and Tailscale
_SITE_LOCAL = ipaddress.ip_network("fec0::/10")
_PRIVATE = (
    *(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    ipaddress.ip_network("fc00::/7"),
    _SHARED,
    _SITE_LOCAL,
)
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_V4_COMPATIBLE = ipaddress.ip_network("::/96")
_TRANSLATED = ipaddress.ip_network("::ffff:0:0:0/96")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})


# --- the text of an address ----------------------------------------------------------------------


def parse(url: str) -> Origin:
    """Where a URL leads, if its text is in order. An IP address in it is not judged yet.

    Raises:
        Refused: its text is not in order.
    """
    if _UNFIT.search(url):
        raise Refused(Reason.CHARACTERS)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Refused(_why_unreadable(url)) from None
    if parts.scheme not in _PORTS:
        raise Refused(Reason.SCHEME)
    if "@" in parts.netloc:
        raise Refused(Reason.LOGIN)
    if not parts.hostname:
        raise Refused(Reason.NO_HOST)
    if port in _BAD_PORTS:
        raise Refused(Reason.PORT)
    return Origin(
        parts.scheme, _host(parts.hostname), _PORTS[parts.scheme] if port is None else port
    )


def _why_unreadable(url: str) -> Reason:
    """Python refuses some hosts itself; the operator hears which kind it was."""
    if not url.isascii():
        return Reason.UNICODE
    return Reason.ZONE if re.search(r"\[[^\]]*%", url) else Reason.UNREADABLE


def _host(text: str) -> str:
    """A host in lower case, an IP address in its usual form."""
    if not text.isascii():
        raise Refused(Reason.UNICODE)
    host = text.lower()
    if ":" in host:
        if "%" in host:
            raise Refused(Reason.ZONE)
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:  # pragma: no cover  # newer Pythons refuse it in urlsplit
            raise Refused(Reason.UNREADABLE) from None
    if host.endswith("."):
        raise Refused(Reason.TRAILING_DOT)
    if len(host) > _LONGEST_HOST_NAME or not _HOST_NAME.fullmatch(host):
        raise Refused(Reason.HOST_NAME)
    last = host.rpartition(".")[2]
    # Programs disagree on 127.1, 0177.0.0.1 and 2130706433, so only the usual form will do.
    if _NUMBER.fullmatch(last) and not _is_usual_v4(host):
        raise Refused(Reason.ODD_NUMBER)
    return host


def _is_usual_v4(host: str) -> bool:
    is_four = _CANONICAL_V4.fullmatch(host) is not None
    return is_four and all(int(part) <= 255 for part in host.split("."))


def check_host(host: str, reach: Reach) -> None:
    """Judge a host by its name, or as an address where it is one.

    Args:
        host: of an `Origin`.
        reach: how far it may lead.

    Raises:
        Refused: it leads too far. What a name resolves to is for `check_address`.
    """
    if host in _METADATA_NAMES:
        raise Refused(Reason.METADATA)
    if reach < Reach.LOCAL and (host in _LOCAL_NAMES or host.endswith(".localhost")):
        raise Refused(Reason.LOCAL_NAME)
    if _is_number(host):
        check_address(host, reach)


def _is_number(host: str) -> bool:
    return ":" in host or _is_usual_v4(host)


# --- an IP address -------------------------------------------------------------------------------


def check_address(text: str, reach: Reach) -> None:
    """Judge an IP address, as it stands in a URL or as a name resolves to it.

    Args:
        text: such as `10.0.0.5` or `2001:db8::1`.
        reach: how far it may lead.

    Raises:
        Refused: it leads too far.
    """
    if "%" in text:
        raise Refused(Reason.ZONE)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise Refused(Reason.UNREADABLE) from None
    _check(address, reach)


def _check(address: IPAddress, reach: Reach) -> None:
    if isinstance(address, ipaddress.IPv6Address):
        inner, is_tunnel = _embedded(address)
        if inner is not None:
            _check(inner, reach)
            if is_tunnel:
                raise Refused(Reason.TUNNEL)
            return
    reason = _special(address)
    if reason is not None and reach < _NEEDED.get(reason, _NEVER):
        raise Refused(reason)


_NEEDED = {Reason.PRIVATE: Reach.PRIVATE, Reason.LOOPBACK: Reach.LOCAL}
_NEVER = max(Reach) + 1


def _special(address: IPAddress) -> Reason | None:
    """What is special about an address that holds no other; None for one on the Internet."""
    if address in _METADATA:
        return Reason.METADATA
    if address.is_loopback:
        return Reason.LOOPBACK
    if address.is_multicast:
        return Reason.MULTICAST
    if address.is_link_local:
        return Reason.LINK_LOCAL
    if any(address in network for network in _PRIVATE):
        return Reason.PRIVATE
    if not address.is_global or (address.version == 6 and address not in _GLOBAL_V6):
        return Reason.RESERVED
    return None


def _embedded(address: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address | None, bool]:
    """The IPv4 address inside an IPv6 one, and whether it is an outdated tunnel's.

    Mapped addresses and NAT64 are how a machine without IPv4 reaches the Internet, so they are as
    good as what they hold. 6to4, Teredo, ISATAP and the rest have no business here.
    """
    number = int(address)
    low = ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped, False
    if address in _NAT64:
        return low, False
    if address.sixtofour is not None:
        return address.sixtofour, True
    if address.teredo is not None:
        return address.teredo[1], True
    is_isatap = (number >> 32) & 0xFFFFFFFF in _ISATAP
    is_translated = address in _TRANSLATED or address in _LOCAL_NAT64
    # Below 2 ** 16 stand `::` and `::1`, which are no IPv4 addresses.
    is_compatible = address in _V4_COMPATIBLE and number > 0xFFFF
    if is_isatap or is_translated or is_compatible:
        return low, True
    return None, False


# --- who may be named ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins that a message may name: MESSAGE_VAULT_ORIGINS.

    Attributes:
        any_public: every origin on the Internet.
        named: these, wherever they lead short of link-local and metadata addresses.
        below: every host below these domains, likewise.
    """

    any_public: bool = False
    named: frozenset[Origin] = frozenset()
    below: frozenset[Origin] = frozenset()

    @classmethod
    def parse(cls, items: Iterable[str]) -> Origins:
        """Read `*`, `https://vault.example.org`, `http://10.0.0.5:9000`, `https://*.example.org`.

        Raises:
            ValueError: one is none of these. The text completes `... must be`.
        """
        any_public = False
        named: set[Origin] = set()
        below: set[Origin] = set()
        for item in items:
            if item == "*":
                any_public = True
                continue
            is_below = "://*." in item
            try:
                origin = parse(item.replace("://*.", "://", 1))
                check_host(origin.host, Reach.LOCAL)
            except Refused as refused:
                raise ValueError(f"origins such as https://vault.example.org ({refused})") from None
            if urlsplit(item).path not in {"", "/"} or "?" in item or "#" in item:
                raise ValueError("origins such as https://vault.example.org, without a path")
            if is_below and ("." not in origin.host or _is_number(origin.host)):
                raise ValueError("origins; a * stands for what is below a domain")
            (below if is_below else named).add(origin)
        return cls(any_public, frozenset(named), frozenset(below))

    def __str__(self) -> str:
        """As it is written in MESSAGE_VAULT_ORIGINS."""
        texts = ["*"] if self.any_public else []
        texts += sorted(str(origin) for origin in self.named)
        texts += sorted(str(origin).replace("://", "://*.", 1) for origin in self.below)
        return ",".join(texts) or "none"

    def reach(self, origin: Origin) -> Reach:
        """How far `origin` may lead, as a message's own word.

        Raises:
            Refused: a message may not name it.
        """
        if origin in self.named:
            return Reach.LOCAL if is_local(origin.host) else Reach.PRIVATE
        if any(
            (origin.scheme, origin.port) == (above.scheme, above.port)
            and origin.host.endswith(f".{above.host}")
            for above in self.below
        ):
            return Reach.PRIVATE
        if self.any_public:
            return Reach.PUBLIC
        raise Refused(Reason.NOT_ALLOWED)


def is_local(host: str) -> bool:
    """Whether a host is this machine by its very name.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("vault")
    (True, True, False)
    """
    if _is_number(host):
        return ipaddress.ip_address(host).is_loopback
    return host in _LOCAL_NAMES or host.endswith(".localhost")
