"""Which addresses a message may name, and which never."""

from __future__ import annotations

import pytest

from vault_ml.vault.addresses import (
    Origin,
    Origins,
    Reach,
    Reason,
    Refused,
    check_address,
    check_host,
    is_local,
    parse,
)

EVERYWHERE = Origins.parse(["*"])


def judge(url: str, origins: Origins = EVERYWHERE) -> Reach:
    """All that is known of a URL before its name is resolved."""
    origin = parse(url)
    reach = origins.reach(origin)
    check_host(origin.host, reach)
    return reach


# Everything below is refused although MESSAGE_VAULT_ORIGINS is `*`.
HOSTILE = [
    # not an address at all
    ("", Reason.SCHEME),
    ("/storage/x.mp4", Reason.SCHEME),
    ("//vault.example/x", Reason.SCHEME),
    ("https://", Reason.NO_HOST),
    ("https:///x.mp4", Reason.NO_HOST),
    ("https://:443/x", Reason.NO_HOST),
    ("https:vault.example/x", Reason.NO_HOST),
    ("http://[::1", Reason.UNREADABLE),
    ("http://[::g]/", Reason.UNREADABLE),
    ("http://[127.0.0.1]/", Reason.UNREADABLE),
    ("http://vault.example:http/", Reason.UNREADABLE),
    ("http://vault.example:99999/", Reason.UNREADABLE),
    ("http://vault.example:-1/", Reason.UNREADABLE),
    # schemes
    ("file:///etc/passwd", Reason.SCHEME),
    ("ftp://vault.example/x", Reason.SCHEME),
    ("gopher://127.0.0.1:6379/_FLUSHALL", Reason.SCHEME),
    ("data:video/mp4;base64,AAAA", Reason.SCHEME),
    ("javascript:alert(1)", Reason.SCHEME),
    ("dict://127.0.0.1:11211/stats", Reason.SCHEME),
    ("jar:http://vault.example!/x", Reason.SCHEME),
    ("unix:///var/run/docker.sock", Reason.SCHEME),
    ("s3://bucket/x", Reason.SCHEME),
    ("httpx://vault.example/", Reason.SCHEME),
    # characters that programs read differently
    ("http://vault.example\\@127.0.0.1/", Reason.CHARACTERS),
    ("http:\\\\127.0.0.1\\x", Reason.CHARACTERS),
    ("http://vault.example/ HTTP/1.1\r\nX-Injected: 1", Reason.CHARACTERS),
    ("http://vault.example/\x00", Reason.CHARACTERS),
    (" http://vault.example/", Reason.CHARACTERS),
    ("ht\ntp://vault.example/", Reason.CHARACTERS),
    ("http://127.0.0.1\t.vault.example/", Reason.CHARACTERS),
    # logins
    ("http://user:pass@vault.example/", Reason.LOGIN),
    ("http://vault.example@127.0.0.1/", Reason.LOGIN),
    ("http://vault.example:80@127.0.0.1/", Reason.LOGIN),
    ("http://@vault.example/", Reason.LOGIN),
    # unicode and host names that are none
    ("http://１２７.０.０.１/", Reason.UNICODE),
    ("http://①②⑦.⓪.⓪.①/", Reason.UNICODE),
    ("http://127。0。0。1/", Reason.UNICODE),
    ("http://ⓛocalhost/", Reason.UNICODE),
    ("http://vaült.example/", Reason.UNICODE),
    ("http://vault.example℀.example/", Reason.UNICODE),
    ("http://vault\u200b.example/", Reason.UNICODE),
    ("http://%31%32%37.0.0.1/", Reason.HOST_NAME),
    ("http://vault%2eexample/", Reason.HOST_NAME),
    ("http://-vault.example/", Reason.HOST_NAME),
    ("http://vault..example/", Reason.HOST_NAME),
    ("http://.vault.example/", Reason.HOST_NAME),
    ("http://" + "a" * 64 + ".example/", Reason.HOST_NAME),
    ("http://" + "a." * 130 + "example/", Reason.HOST_NAME),
    ("http://vault.example,127.0.0.1.example/", Reason.HOST_NAME),
    ("http://vault.example./", Reason.TRAILING_DOT),
    ("http://localhost./", Reason.TRAILING_DOT),
    ("http://127.0.0.1./", Reason.TRAILING_DOT),
    ("http://169.254.169.254./latest/meta-data/", Reason.TRAILING_DOT),
    # this machine by name
    ("http://localhost/", Reason.LOCAL_NAME),
    ("http://LOCALHOST:8080/", Reason.LOCAL_NAME),
    ("http://ip6-localhost/", Reason.LOCAL_NAME),
    ("http://vault.localhost/", Reason.LOCAL_NAME),
    ("http://localhost.localdomain/", Reason.LOCAL_NAME),
    # numbers written in unusual ways
    ("http://2130706433/", Reason.ODD_NUMBER),
    ("http://0x7f000001/", Reason.ODD_NUMBER),
    ("http://0x7f.0.0.1/", Reason.ODD_NUMBER),
    ("http://0177.0.0.1/", Reason.ODD_NUMBER),
    ("http://017700000001/", Reason.ODD_NUMBER),
    ("http://127.1/", Reason.ODD_NUMBER),
    ("http://127.0.1/", Reason.ODD_NUMBER),
    ("http://0/", Reason.ODD_NUMBER),
    ("http://127.0.0.0x1/", Reason.ODD_NUMBER),
    ("http://127.0.0.256/", Reason.ODD_NUMBER),
    ("http://127.0.0.1.1/", Reason.ODD_NUMBER),
    ("http://vault.example.1/", Reason.ODD_NUMBER),
    ("http://00000127.0.0.1/", Reason.ODD_NUMBER),
    # loopback
    ("http://127.0.0.1/", Reason.LOOPBACK),
    ("http://127.255.255.254:8080/metrics", Reason.LOOPBACK),
    ("http://[::1]/", Reason.LOOPBACK),
    ("http://[0:0:0:0:0:0:0:1]/", Reason.LOOPBACK),
    ("http://[::ffff:127.0.0.1]/", Reason.LOOPBACK),
    ("http://[::ffff:7f00:1]/", Reason.LOOPBACK),
    ("http://[64:ff9b::7f00:1]/", Reason.LOOPBACK),
    ("http://[2002:7f00:1::]/", Reason.LOOPBACK),
    # private networks
    ("http://10.0.0.5:9000/bucket/x", Reason.PRIVATE),
    ("http://172.16.0.1/", Reason.PRIVATE),
    ("http://172.31.255.255/", Reason.PRIVATE),
    ("http://192.168.1.1/", Reason.PRIVATE),
    ("http://100.64.0.1/", Reason.PRIVATE),
    ("http://[fc00::1]/", Reason.PRIVATE),
    ("http://[fd12:3456:789a::1]/", Reason.PRIVATE),
    ("http://[fec0::1]/", Reason.PRIVATE),
    ("http://[::ffff:10.0.0.1]/", Reason.PRIVATE),
    ("http://[64:ff9b::10.0.0.1]/", Reason.PRIVATE),
    ("http://[2002:0a00:0001::1]/", Reason.PRIVATE),
    ("http://[2001:0:4136:e378:8000:63bf:f5ff:fffe]/", Reason.PRIVATE),
    ("http://[2001:db8::5efe:192.168.0.1]/", Reason.PRIVATE),
    ("http://[::192.168.0.1]/", Reason.PRIVATE),
    ("http://[64:ff9b:1::10.0.0.1]/", Reason.PRIVATE),
    ("http://[::ffff:0:10.0.0.1]/", Reason.PRIVATE),
    # the machine's own cloud
    ("http://169.254.169.254/latest/meta-data/", Reason.METADATA),
    ("http://169.254.170.2/v2/credentials", Reason.METADATA),
    ("http://100.100.100.200/latest/meta-data/", Reason.METADATA),
    ("http://168.63.129.16/machine", Reason.METADATA),
    ("http://192.0.0.192/opc/v2/", Reason.METADATA),
    ("http://[fd00:ec2::254]/", Reason.METADATA),
    ("http://[::ffff:169.254.169.254]/", Reason.METADATA),
    ("http://[64:ff9b::169.254.169.254]/", Reason.METADATA),
    ("http://[2002:a9fe:a9fe::]/", Reason.METADATA),
    ("http://metadata.google.internal/computeMetadata/v1/", Reason.METADATA),
    ("http://METADATA/", Reason.METADATA),
    ("http://instance-data/", Reason.METADATA),
    # link-local, multicast, nobody's
    ("http://169.254.1.1/", Reason.LINK_LOCAL),
    ("http://[fe80::1]/", Reason.LINK_LOCAL),
    ("http://[fe80::1%25eth0]/", Reason.ZONE),
    ("http://[fe80::1%eth0]/", Reason.ZONE),
    ("http://224.0.0.1/", Reason.MULTICAST),
    ("http://239.255.255.250:1900/", Reason.MULTICAST),
    ("http://[ff02::1]/", Reason.MULTICAST),
    ("http://0.0.0.0/", Reason.RESERVED),
    ("http://0.1.2.3/", Reason.RESERVED),
    ("http://[::]/", Reason.RESERVED),
    ("http://240.0.0.1/", Reason.RESERVED),
    ("http://255.255.255.255/", Reason.RESERVED),
    ("http://192.0.2.1/", Reason.RESERVED),
    ("http://198.18.0.1/", Reason.RESERVED),
    ("http://[2001:db8::1]/", Reason.RESERVED),
    ("http://[100::1]/", Reason.RESERVED),
    ("http://[4000::1]/", Reason.RESERVED),
    # tunnels, even to the Internet
    ("http://[2002:5db8:d822::1]/", Reason.TUNNEL),
    ("http://[::93.184.216.34]/", Reason.TUNNEL),
    ("http://[2a00:1450::5efe:93.184.216.34]/", Reason.TUNNEL),
    # other protocols
    ("http://vault.example:25/", Reason.PORT),
    ("http://vault.example:22/", Reason.PORT),
    ("http://vault.example:6379/", Reason.PORT),
    ("http://vault.example:0/", Reason.PORT),
]


@pytest.mark.parametrize(("url", "reason"), HOSTILE, ids=[repr(url)[:60] for url, _ in HOSTILE])
def test_a_hostile_address_is_refused_for_its_reason(url: str, reason: Reason) -> None:
    with pytest.raises(Refused) as caught:
        judge(url)
    assert caught.value.reason is reason
    assert reason.value in str(caught.value)


def test_the_table_is_as_long_as_was_promised() -> None:
    assert len({url for url, _ in HOSTILE}) == len(HOSTILE) >= 60
    # What stays to be covered is a property of lists, not of addresses.
    assert {reason for _, reason in HOSTILE} == set(Reason) - {Reason.NOT_ALLOWED}


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://s3.eu-west-1.example.com/b/x.mp4?X-Amz-Signature=1", "https://s3.eu-west-1.example.com"),
        ("HTTPS://Bucket.Example.COM:443/x", "https://bucket.example.com"),
        ("http://vault.example:80/", "http://vault.example"),
        ("http://vault.example:8081/", "http://vault.example:8081"),
        ("https://xn--vault-kva.example/x", "https://xn--vault-kva.example"),
        ("http://93.184.216.34/", "http://93.184.216.34"),
        ("http://[2606:2800:220:1::248]:9000/", "http://[2606:2800:220:1::248]:9000"),
        ("http://[::ffff:93.184.216.34]/", "http://[::ffff:5db8:d822]"),
        ("http://[64:ff9b::93.184.216.34]/", "http://[64:ff9b::5db8:d822]"),
        ("http://minio_1/x", "http://minio_1"),
        ("https://vault.example/a@b?c=d@e", "https://vault.example"),
        ("https://storage.example/bücher.mp4", "https://storage.example"),
    ],
)  # fmt: skip
def test_an_address_on_the_internet_is_taken(url: str, origin: str) -> None:
    assert judge(url) is Reach.PUBLIC
    assert str(parse(url)) == origin
    assert parse(origin) == parse(url)


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("93.184.216.34", Reach.PUBLIC),
        ("2606:2800:220:1::248", Reach.PUBLIC),
        ("10.0.0.5", Reach.PRIVATE),
        ("fd12:3456:789a::1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("::ffff:10.0.0.5", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOCAL),
        ("::1", Reach.LOCAL),
        ("::ffff:127.0.0.1", Reach.LOCAL),
    ],
)
def test_an_address_needs_its_reach(address: str, reach: Reach) -> None:
    for given in Reach:
        if given >= reach:
            check_address(address, given)
        else:
            with pytest.raises(Refused):
                check_address(address, given)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "169.254.1.1", "fe80::1", "224.0.0.1",
     "0.0.0.0", "::", "255.255.255.255", "64:ff9b:1::127.0.0.1", "2002:7f00:1::", "fe80::1%eth0",
     "not an address", ""],
)  # fmt: skip
def test_some_addresses_are_never_called(address: str) -> None:
    with pytest.raises(Refused):
        check_address(address, Reach.LOCAL)


def test_names_of_this_machine_and_of_metadata_services() -> None:
    check_host("localhost", Reach.LOCAL)
    with pytest.raises(Refused) as caught:
        check_host("metadata.google.internal", Reach.LOCAL)
    assert caught.value.reason is Reason.METADATA
    assert [is_local(host) for host in ("::1", "127.9.9.9", "a.localhost", "10.0.0.1", "v")] == [
        True, True, True, False, False
    ]  # fmt: skip


def test_no_list_allows_nothing() -> None:
    for origins in (Origins(), Origins.parse([])):
        with pytest.raises(Refused) as caught:
            judge("https://vault.example/", origins)
        assert caught.value.reason is Reason.NOT_ALLOWED


def test_a_listed_origin_is_taken_to_the_letter() -> None:
    origins = Origins.parse(
        ["https://vault.example", "http://10.0.0.5:9000/", "http://127.0.0.1:8081"]
    )
    assert judge("https://vault.example/x", origins) is Reach.PRIVATE
    assert judge("http://10.0.0.5:9000/x", origins) is Reach.PRIVATE
    assert judge("http://127.0.0.1:8081/x", origins) is Reach.LOCAL
    others = (
        "http://vault.example/", "https://vault.example:8443/", "https://a.vault.example/",
        "http://10.0.0.5/", "http://127.0.0.1:8082/", "https://vault.example.org/",
    )  # fmt: skip
    for url in others:
        with pytest.raises(Refused) as caught:
            judge(url, origins)
        assert caught.value.reason is Reason.NOT_ALLOWED


def test_a_listed_origin_never_leads_to_metadata() -> None:
    assert judge("http://10.0.0.5/", Origins.parse(["*", "http://10.0.0.5"])) is Reach.PRIVATE
    for text in ("http://169.254.169.254", "http://metadata.google.internal", "http://0.0.0.0"):
        with pytest.raises(ValueError, match="leads to"):
            Origins.parse([text])


def test_a_domain_allows_what_is_below_it() -> None:
    origins = Origins.parse(["https://*.storage.example"])
    assert judge("https://bucket.storage.example/x", origins) is Reach.PRIVATE
    assert judge("https://a.b.storage.example/x", origins) is Reach.PRIVATE
    for url in ("https://storage.example/", "https://evilstorage.example/",
                "http://bucket.storage.example/", "https://bucket.storage.example:444/",
                "https://storage.example.evil.example/"):  # fmt: skip
        with pytest.raises(Refused):
            judge(url, origins)


@pytest.mark.parametrize(
    "text",
    ["vault.example", "https://vault.example/api", "https://vault.example?x", "https://u:p@v.example",
     "https://*", "https://*.example", "https://*.10.0.0.1", "https://a.*.example.org", "ftp://v.example",
     "https://*.*.example.org", "https://vault.example#x", "all"],
)  # fmt: skip
def test_a_list_that_is_none_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="origins"):
        Origins.parse([text])


def test_a_refusal_shows_nothing_of_the_address() -> None:
    for url, _ in HOSTILE:
        with pytest.raises(Refused) as caught:
            judge(url)
        assert url not in str(caught.value) or not url
        assert caught.value.__cause__ is None


def test_an_origin_compares_by_what_it_means() -> None:
    assert parse("https://V.example/a") == Origin("https", "v.example", 443)
