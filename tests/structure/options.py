#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every socket option that the headers here know is in the table of src/kinds/sockets/option.c, or left for a reason."""
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import REPOSITORY, Skip, check, main, test

HEADERS = ("asm/socket.h", "linux/in.h", "linux/in6.h", "linux/tcp.h", "linux/udp.h", "linux/netlink.h", "linux/if_packet.h")
TABLE = REPOSITORY / "src/kinds/sockets/option.c"

# Left, and why. A name ending in * stands for all that begin so.
LEFT = {
    # Carried by another part of a record.
    "IP_ADD_MEMBERSHIP": "multicast.c", "IP_DROP_MEMBERSHIP": "multicast.c", "IP_ADD_SOURCE_MEMBERSHIP": "multicast.c",
    "IP_DROP_SOURCE_MEMBERSHIP": "multicast.c", "IP_BLOCK_SOURCE": "multicast.c", "IP_UNBLOCK_SOURCE": "multicast.c",
    "IP_MSFILTER": "multicast.c", "IPV6_ADD_MEMBERSHIP": "multicast.c", "IPV6_DROP_MEMBERSHIP": "multicast.c",
    "NETLINK_ADD_MEMBERSHIP": "netlink.c", "NETLINK_DROP_MEMBERSHIP": "netlink.c", "NETLINK_LIST_MEMBERSHIPS": "netlink.c",
    "PACKET_ADD_MEMBERSHIP": "packet.c", "PACKET_DROP_MEMBERSHIP": "packet.c", "PACKET_COPY_THRESH": "packet.c",
    "PACKET_FANOUT": "packet.c; groups of programs are refused", "PACKET_FANOUT_DATA": "refused in packet.c",
    "PACKET_RX_RING": "refused in packet.c", "PACKET_TX_RING": "refused in packet.c", "PACKET_HDRLEN": "of a ring",
    "SO_PEERCRED": "actor.c", "SO_PEERGROUPS": "actor.c", "IPV6_ADDRFORM": "SO_DOMAIN says it",
    "SO_ATTACH_BPF": "refused in socket.c", "TCP_ULP": "refused in tcp.c", "TCP_MD5SIG": "refused in tcp.c",
    "TCP_MD5SIG_EXT": "refused in tcp.c", "TCP_AO_*": "refused in tcp.c",
    "TCP_REPAIR": "tcp_queues.c", "TCP_REPAIR_*": "tcp_queues.c", "TCP_QUEUE_SEQ": "tcp_queues.c", "TCP_TIMESTAMP": "tcp_queues.c",
    # The same as one that is carried.
    "SO_BINDTOIFINDEX": "SO_BINDTODEVICE", "IP_RECVRETOPTS": "IP_RETOPTS", "TCP_CM_INQ": "TCP_INQ", "SO_SNDBUFFORCE": "SO_SNDBUF", "SO_RCVBUFFORCE": "SO_RCVBUF", "SO_ATTACH_FILTER": "SO_GET_FILTER",
    "SO_DETACH_FILTER": "SO_GET_FILTER", "SO_DETACH_BPF": "SO_GET_FILTER", "SO_*_OLD": "without _OLD", "SO_RCVTIMEO_NEW": "SO_RCVTIMEO",
    "SO_SNDTIMEO_NEW": "SO_SNDTIMEO", "IPV6_HOPLIMIT": "IPV6_RECVHOPLIMIT", "UDP_ENCAP_*": "values of UDP_ENCAP",
    # Questions and orders, which no socket keeps.
    **{name: "only asked" for name in (
        "SO_ACCEPTCONN", "SO_BPF_EXTENSIONS", "SO_COOKIE", "SO_DOMAIN", "SO_ERROR", "SO_INCOMING_NAPI_ID", "SO_MEMINFO", "SO_NETNS_COOKIE",
        "SO_PEERNAME", "SO_PEERSEC", "SO_PEERPIDFD", "SO_PROTOCOL", "SO_TYPE", "TCP_INFO", "TCP_CC_INFO", "TCP_ZEROCOPY_RECEIVE", "TCP_IS_MPTCP",
        "IP_MTU", "IPV6_MTU", "IPV6_PATHMTU", "IP_PKTOPTIONS", "IPV6_2292PKTOPTIONS", "PACKET_STATISTICS", "PACKET_ROLLOVER_STATS", "IP_PROTOCOL",
        "IP_ORIGDSTADDR", "IPV6_ORIGDSTADDR")},
    **{name: "an order" for name in ("SO_CNX_ADVICE", "SO_DEVMEM_DONTNEED")},
    # Without an effect on Linux.
    **{name: "does nothing" for name in ("SO_BSDCOMPAT", "SO_SECURITY_*", "SO_SNDLOWAT", "TCP_THIN_DUPACK", "IPV6_AUTHHDR")},
    # The kernel does not show them.
    "SO_ATTACH_REUSEPORT_*": "no question for it, and SO_DETACH_REUSEPORT_BPF takes it away", "SO_DETACH_REUSEPORT_BPF": "as that",
    "SO_INQ": "no question for it (6.18)", "IP_ROUTER_ALERT": "no question for it", "IPV6_ROUTER_ALERT": "no question for it",
    "IPV6_PKTINFO": "sticky: no question for it", "IPV6_NEXTHOP": "no question for it", "IP_IPSEC_POLICY": "no question for it",
    "IP_XFRM_POLICY": "no question for it", "IPV6_IPSEC_POLICY": "no question for it", "IPV6_XFRM_POLICY": "no question for it",
    "IPV6_JOIN_ANYCAST": "the host's list does not say whose", "IPV6_LEAVE_ANYCAST": "as that", "PACKET_TX_TIMESTAMP": "no question for it",
    # What the kernel makes of a connection by itself.
    "TCP_QUICKACK": "a mood of the connection", "TCP_SAVED_SYN": "the packet that made a connection; TCP_SAVE_SYN is carried",
    "SO_BUF_LOCK": "tells which buffers to carry", "IPV6_FLOWLABEL_MGR": "a lease that ends by itself",
}
# Values, types of messages and flags in those headers.
NOT_OPTIONS = re.compile(r"""(IP_(PMTUDISC_|DEFAULT_)|IPV6_(PMTUDISC_|PRIORITY_|TLV_|FL_|PREFER_|FLOWINFO_(FLOWLABEL|PRIORITY)|SRCRT_)|TCP_(MD5SIG_(MAX|FLAG)|
    MSS_|REPAIR_O|ENCAP_|RECEIVE_|NLA_|CA_|AO_(MAX|KEY))|UDP_(V4|V6)_|PACKET_(HOST|BROADCAST|MULTICAST|OTHERHOST|OUTGOING|LOOPBACK|USER|KERNEL|FASTROUTE|FANOUT_|MR_|
    RECV_OUTPUT)|NETLINK_(ROUTE|UNUSED|USERSOCK|FIREWALL|SOCK_DIAG|INET_DIAG|NFLOG|XFRM|SELINUX|ISCSI|AUDIT|FIB_LOOKUP|CONNECTOR|NETFILTER|IP6_FW|DNRTMSG|
    KOBJECT_UEVENT|GENERIC|SCSITRANSPORT|ECRYPTFS|RDMA|CRYPTO|SMC|RX_RING|TX_RING))""", re.VERBOSE)


def is_left(name):
    if name in LEFT:
        return True
    for pattern in LEFT:
        before, star, after = pattern.partition("*")
        if star and name.startswith(before) and name.endswith(after):
            return True
    return False


def known_here():
    """The options' names in the headers of this machine; those of enumerations are defined as themselves."""
    text = "".join(f"#include <{name}>\n" for name in HEADERS)
    done = subprocess.run(["gcc", "-E", "-dD", "-"], input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if done.returncode:
        raise Skip("no headers of the kernel")
    text = done.stdout.decode()
    names = set(re.findall(r"^#define ((?:SO|IP|IPV6|TCP|UDP|NETLINK|PACKET)_[A-Z0-9_]+)[ \t]+\S", text, re.MULTILINE))
    return {name for name in names if not NOT_OPTIONS.match(name)}


@test("every socket option that the headers here know is carried, or left for a reason that is written down", quick=True)
def options():
    words = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", TABLE.read_text()))
    carried = words | {word[len("OPTION_"):] for word in words if word.startswith("OPTION_")}
    known = known_here()
    check(len(known) > 150, "the headers are not understood", len(known))
    missing = sorted(name for name in known if name not in carried and not is_left(name))
    check(not missing, "socket options that nobody has thought of", missing)


@test("no option is both carried and left", quick=True)
def both():
    text = TABLE.read_text()
    table = text[text.index("socket_options[] = {"):text.index("socket_option_count =")]
    carried = {word.removeprefix("OPTION_") for word in re.findall(r"\b[A-Z][A-Z0-9_]+\b", table)}
    check(not carried & (set(LEFT) - {"SO_BUF_LOCK"}), "carried and left", carried & set(LEFT))


if __name__ == "__main__":
    main()
