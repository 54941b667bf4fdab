//! One question: to one server after the other, or to all at once through an uplink.
//!
//! hickory-resolver stores name servers as bare addresses and loses the `%device` of a link-local one. A socket that
//! is bound to the device (`SO_BINDTODEVICE`) reaches such a server, and keeps a question on its uplink. A server on
//! this host is asked without a device, since it cannot be reached through one.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use clatd_stages::settings::DnsServer;
use clatd_stages::world::DnsAnswer;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hickory_resolver::Resolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioTime};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tracing::{debug, trace};

use crate::trusted;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long one try waits.
const TRY: Duration = Duration::from_secs(2);
/// Tries after the first.
const RETRIES: usize = 2;
/// The time for one server in all, whatever the resolver makes of the values above.
const SERVER: Duration = Duration::from_millis(6500);

/// A name, taken to be absolute.
pub(super) fn absolute(name: &str) -> io::Result<Name> {
    let mut name = Name::from_ascii(name).map_err(io::Error::other)?;
    name.set_fqdn(true);
    Ok(name)
}

/// Asks `server`, else the system's resolvers until one answers.
pub(super) async fn look_up(
    name: &Name,
    kind: RecordType,
    server: Option<&DnsServer>,
    device: Option<&str>,
) -> io::Result<DnsAnswer<RData>> {
    let servers = match server {
        Some(server) => vec![server.clone()],
        None => match trusted::read_foreign(Path::new(RESOLV_CONF)) {
            Ok(text) => system_resolvers(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Ok(DnsAnswer::Failed(format!("reading {RESOLV_CONF}: {error}"))),
        },
    };
    if let (None, Some(device)) = (server, device) {
        return Ok(first_of(name, kind, &beyond_this_host(servers, device), device).await);
    }
    let mut failures = Vec::new();
    for server in &servers {
        match tokio::time::timeout(SERVER, ask(name, kind, server, device)).await {
            Ok(Err(failure)) => failures.push(format!("{server}: {failure}")),
            Ok(Ok(answer)) => return Ok(answer),
            Err(_) => failures.push(format!("{server}: no answer")),
        }
    }
    if failures.is_empty() {
        failures.push(format!("no name server in {RESOLV_CONF}"));
    }
    Ok(DnsAnswer::Failed(failures.join("; ")))
}

/// Asks all servers at once through one uplink. Most may be out of reach, since resolv.conf does not say which belong
/// to it. The first answer with such records counts, else the first that says that there are none.
async fn first_of(name: &Name, kind: RecordType, servers: &[DnsServer], device: &str) -> DnsAnswer<RData> {
    let asked = servers.iter().map(|server| async move {
        let answer = tokio::time::timeout(SERVER, ask(name, kind, server, Some(device))).await;
        (server, answer.unwrap_or_else(|_| Err("no answer".to_owned())))
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let (mut negative, mut failures) = (None, Vec::new());
    while let Some((server, answer)) = asked.next().await {
        match answer {
            Ok(positive @ DnsAnswer::Addresses { .. }) => return positive,
            Ok(other) => _ = negative.get_or_insert(other),
            Err(failure) => failures.push(format!("{server}: {failure}")),
        }
    }
    if servers.is_empty() {
        failures.push(format!("no name server in {RESOLV_CONF}"));
    }
    failures.sort();
    negative.unwrap_or_else(|| DnsAnswer::Failed(failures.join("; ")))
}

/// Leaves out resolvers on this host, which answer from one cache for all uplinks (RFC 8880 section 7.1), unless
/// there are no others.
fn beyond_this_host(servers: Vec<DnsServer>, device: &str) -> Vec<DnsServer> {
    let (here, beyond): (Vec<_>, Vec<_>) = servers.into_iter().partition(|server| server.address.is_loopback());
    if beyond.is_empty() {
        for cache in &here {
            debug!(
                "asking {cache} on this host about {device}, since no other server is known; its answer may be another uplink's"
            );
        }
        return here;
    }
    beyond
}

async fn ask(
    name: &Name,
    kind: RecordType,
    server: &DnsServer,
    device: Option<&str>,
) -> Result<DnsAnswer<RData>, String> {
    let through = device.map(|device| format!(" through {device}")).unwrap_or_default();
    trace!("asking {server}{through} for {name} {kind}");
    let answer = ask_for_answer(name, kind, server, device).await;
    trace!("{server}{through} says of {name} {kind}: {answer:?}");
    answer
}

async fn ask_for_answer(
    name: &Name,
    kind: RecordType,
    server: &DnsServer,
    device: Option<&str>,
) -> Result<DnsAnswer<RData>, String> {
    let resolver = resolver(server, device)?;
    match resolver.lookup(name.clone(), kind).await {
        Ok(lookup) => {
            let answers = lookup.answers();
            let addresses: Vec<_> = answers
                .iter()
                .filter(|record| record.record_type() == kind)
                .map(|record| record.data.clone())
                .collect();
            // Aliases on the way count, too: the answer expires with the shortest TTL among them.
            let ttl_s = answers.iter().map(|record| record.ttl).min().unwrap_or_default();
            if addresses.is_empty() {
                return Ok(DnsAnswer::NoRecords {
                    nxdomain: false,
                    ttl_s: None,
                });
            }
            Ok(DnsAnswer::Addresses { addresses, ttl_s })
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain | ResponseCode::NoError => {
                let nxdomain = none.response_code == ResponseCode::NXDomain;
                Ok(DnsAnswer::NoRecords {
                    nxdomain,
                    ttl_s: none.negative_ttl,
                })
            }
            code => Err(code.to_string()),
        },
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(code.to_string()),
        Err(NetError::Timeout) => Err("no answer".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Asks one server, through this device unless the server names another. It remembers nothing.
fn resolver(server: &DnsServer, device: Option<&str>) -> Result<Resolver<Sockets>, String> {
    let device = server
        .device
        .as_deref()
        .or(device)
        .filter(|_| !server.address.is_loopback());
    let sockets = Sockets {
        handle: TokioHandle::default(),
        device: device.map(str::to_owned),
    };
    let mut name_server = NameServerConfig::udp_and_tcp(server.address);
    name_server.trust_negative_responses = false;
    let config = ResolverConfig::from_parts(None, vec![], vec![name_server]);
    let mut builder = Resolver::builder_with_config(config, sockets);
    let options = builder.options_mut();
    options.cache_size = 0;
    options.attempts = RETRIES;
    options.timeout = TRY;
    options.use_hosts_file = ResolveHosts::Never;
    // One short answer needs no larger packets. Without EDNS nobody asks for DNSSEC records, which would stop a
    // DNS64.
    options.edns0 = false;
    options.num_concurrent_reqs = 1;
    builder.build().map_err(|error| error.to_string())
}

/// The `nameserver` lines of resolv.conf, with their `%device`.
fn system_resolvers(text: &str) -> Vec<DnsServer> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    lines.filter_map(|server| server.parse().ok()).collect()
}

/// Sockets bound to a device, if one is given.
#[derive(Clone)]
struct Sockets {
    handle: TokioHandle,
    device: Option<String>,
}

impl Sockets {
    fn open(&self, peer: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(peer), kind.nonblocking(), Some(protocol))?;
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        Ok(socket)
    }
}

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Self::Handle {
        self.handle.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        wait: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = Result<Self::Tcp, io::Error>>>> {
        let sockets = self.clone();
        Box::pin(async move {
            let socket = sockets.open(server, Type::STREAM, Protocol::TCP)?;
            if let Some(bind) = bind {
                socket.bind(&SockAddr::from(bind))?;
            }
            let connect = TcpSocket::from_std_stream(socket.into()).connect(server);
            Ok(AsyncIoTokioAsStd(
                tokio::time::timeout(wait.unwrap_or(TRY), connect).await??,
            ))
        })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        _server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = Result<Self::Udp, io::Error>>>> {
        let sockets = self.clone();
        Box::pin(async move {
            let any = match local.ip() {
                // The resolver would choose ports that other programs may need; the kernel knows the free ones.
                IpAddr::V4(ip) => SocketAddr::new(ip.into(), 0),
                IpAddr::V6(ip) => SocketAddr::new(ip.into(), 0),
            };
            let socket = sockets.open(local, Type::DGRAM, Protocol::UDP)?;
            socket.bind(&SockAddr::from(any))?;
            UdpSocket::from_std(socket.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_cache_is_asked_only_where_there_is_nothing_else() {
        let servers = |text: &str| system_resolvers(&text.replace(' ', "\nnameserver "));
        let shown = |text: &str| -> Vec<String> {
            let servers = beyond_this_host(servers(text), "wan0");
            servers.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            shown(" 127.0.0.53 2001:db8::53 ::1 fe80::1%wan0"),
            ["2001:db8::53", "fe80::1%wan0"]
        );
        assert_eq!(shown(" 127.0.0.53 ::1"), ["127.0.0.53", "::1"]);
    }

    #[test]
    fn resolv_conf_keeps_its_scopes() {
        let text = "# comment\nsearch example.org\nnameserver 2001:db8::53\nnameserver fe80::1%wan0\n nameserver 192.0.2.1 # x\noptions edns0\nnameserver nonsense\n";
        let servers: Vec<String> = system_resolvers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["2001:db8::53", "fe80::1%wan0", "192.0.2.1"]);
    }
}
