//! The DNS servers that whoever manages a link has for it, asked over the system's D-Bus: systemd-resolved's, then
//! NetworkManager's.
//!
//! Neither has to be there. A bus or a service that is absent or does not answer is a matter of a debug line and of half
//! a second at most, and is left alone for a while then. Nothing is started by asking.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clatd_stages::settings::DnsServer;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::debug;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::{Connection, MatchRule, MessageStream, OwnedVariant, Proxy};

use super::Notify;

mod namespace;
mod network_manager;
mod resolved;

/// How long everything that is asked for one link may take.
const PATIENCE: Duration = Duration::from_millis(450);
/// For how long somebody who did not answer is not asked again.
const SILENCE: Duration = Duration::from_secs(60);

const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The properties that servers stand in, or the objects that have those.
const SERVERS: &[&str] = &["DNS", "Nameservers", "NameserverData", "Ip4Config", "Ip6Config"];

/// The managers of links.
#[derive(Clone)]
pub(super) struct Managers {
    bus: Arc<Mutex<Bus>>,
    notify: Notify,
}

#[derive(Default)]
struct Bus {
    connection: Option<Connection>,
    /// Who did not answer, and until when it is left alone.
    silent: Vec<(&'static str, Instant)>,
}

impl Managers {
    /// Connects when first asked. `notify` is called when servers of any link have changed.
    pub(super) fn new(notify: Notify) -> Self {
        Self {
            bus: Arc::default(),
            notify,
        }
    }

    /// The servers of a link, in the managers' order, each once.
    pub(super) async fn servers(&self, device: &str, index: u32) -> Vec<DnsServer> {
        let begun = Instant::now();
        let Some(connection) = self.connection().await else {
            return Vec::new();
        };
        let left = PATIENCE.saturating_sub(begun.elapsed());
        let (resolved, network_manager) = tokio::join!(
            self.answer_of(resolved::NAME, left, async {
                namespace::same_as_ours(&connection, resolved::SERVICE).await?;
                resolved::servers(&connection, index).await
            }),
            self.answer_of(network_manager::NAME, left, async {
                namespace::same_as_ours(&connection, network_manager::SERVICE).await?;
                network_manager::servers(&connection, device).await
            }),
        );
        let mut servers = Vec::new();
        for (who, known) in [(resolved::NAME, resolved), (network_manager::NAME, network_manager)] {
            let known: Vec<_> = known
                .into_iter()
                .filter_map(|address| server_on(device, address))
                .collect();
            if !known.is_empty() {
                let shown: Vec<_> = known.iter().map(ToString::to_string).collect();
                debug!("{who} has these DNS servers for {device}: {}", shown.join(", "));
            }
            for server in known {
                if !servers.contains(&server) {
                    servers.push(server);
                }
            }
        }
        servers
    }

    /// The connection, made where there is none. Who comes meanwhile waits no longer for it than its maker does.
    async fn connection(&self) -> Option<Connection> {
        const BUS: &str = "the system's D-Bus";
        let mut bus = timeout(PATIENCE, self.bus.lock()).await.ok()?;
        if let Some(connection) = &bus.connection {
            return Some(connection.clone());
        }
        if bus.is_silent(BUS) {
            return None;
        }
        match timeout(PATIENCE, self.connect()).await {
            Ok(Ok(connection)) => bus.connection = Some(connection),
            Ok(Err(error)) => debug!("{BUS} is not there to be asked for DNS servers: {error}"),
            Err(_) => {
                debug!("{BUS} does not answer");
                bus.silence(BUS);
            }
        }
        bus.connection.clone()
    }

    async fn connect(&self) -> zbus::Result<Connection> {
        let connection = zbus::connection::Builder::system().build().await?;
        // Subscribed to before anything is read, so that no change is lost in between.
        let mut signals = Vec::new();
        for rule in resolved::changes().into_iter().chain(network_manager::changes()) {
            signals.push(MessageStream::for_match_rule(rule?, &connection, None).await?);
        }
        tokio::spawn(self.clone().tell_changes(signals));
        Ok(connection)
    }

    /// Until the bus goes away, which is a change too.
    async fn tell_changes(self, signals: Vec<MessageStream>) {
        let mut signals = select_all(signals);
        while let Some(Ok(signal)) = signals.next().await {
            if is_owner_change(&signal) {
                self.bus.lock().await.silent.clear();
            } else if !changes_any(&signal, SERVERS) {
                continue;
            }
            debug!("DNS servers of links have changed");
            (self.notify)();
        }
        self.bus.lock().await.connection = None;
        (self.notify)();
    }

    /// What a service says within the time that is left.
    async fn answer_of(
        &self,
        who: &'static str,
        left: Duration,
        asked: impl Future<Output = zbus::Result<Vec<IpAddr>>>,
    ) -> Vec<IpAddr> {
        if self.bus.lock().await.is_silent(who) {
            return Vec::new();
        }
        match timeout(left, asked).await {
            Ok(Ok(servers)) => servers,
            Ok(Err(error)) => {
                debug!("{who} tells no DNS servers: {error}");
                Vec::new()
            }
            Err(_) => {
                debug!("{who} does not answer");
                self.bus.lock().await.silence(who);
                Vec::new()
            }
        }
    }
}

impl Bus {
    fn is_silent(&self, who: &str) -> bool {
        let now = Instant::now();
        self.silent.iter().any(|(name, until)| *name == who && *until > now)
    }

    fn silence(&mut self, who: &'static str) {
        self.silent.retain(|(name, _)| *name != who);
        self.silent.push((who, Instant::now() + SILENCE));
    }
}

/// A server that the link leads to. A resolver on this host is none: RFC 8880 section 7.1 wants the question to pass by it.
fn server_on(device: &str, address: IpAddr) -> Option<DnsServer> {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return None;
    }
    let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    Some(DnsServer {
        address,
        device: is_link_local.then(|| device.to_owned()),
    })
}

/// An address as its bytes, as both services write them.
fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Calls a method and never starts the service for it.
async fn call<B, R>(
    connection: &Connection,
    (service, path, interface): (&str, &str, &str),
    method: &str,
    body: &B,
) -> zbus::Result<R>
where
    B: serde::Serialize + zbus::DynamicType,
    R: for<'d> zbus::wire::DynamicDeserialize<'d>,
{
    let proxy: Proxy<'_> = zbus::proxy::Builder::new(connection)
        .destination(service)
        .path(path)
        .interface(interface)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let reply = proxy.call_with_flags(method, MethodFlags::NO_AUTO_START, body).await?;
    reply.ok_or(zbus::Error::InvalidReply)
}

/// Reads a property.
async fn property<T>(
    connection: &Connection,
    (service, path, interface): (&str, &str, &str),
    name: &str,
) -> zbus::Result<T>
where
    T: TryFrom<OwnedVariant>,
    zbus::Error: From<T::Error>,
{
    let value: OwnedVariant = call(connection, (service, path, PROPERTIES), "Get", &(interface, name)).await?;
    Ok(T::try_from(value)?)
}

/// The signals by which `service` tells that properties of one of its interfaces changed.
fn property_changes(service: &'static str, interface: &'static str) -> zbus::Result<MatchRule<'static>> {
    MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender(service)
        .interface(PROPERTIES)
        .member("PropertiesChanged")
        .arg(0, interface)
        .build()
}

/// The signal by which the bus tells that `service` came, went or was replaced.
fn owner_changes(service: &'static str) -> zbus::Result<MatchRule<'static>> {
    MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(0, service)
        .build()
}

fn is_owner_change(signal: &zbus::Message) -> bool {
    signal
        .header()
        .member()
        .is_some_and(|member| member == "NameOwnerChanged")
}

/// Whether one of these properties is among those that a signal tells of.
fn changes_any(signal: &zbus::Message, names: &[&str]) -> bool {
    let body = signal.body();
    let told: zbus::Result<(String, BTreeMap<String, OwnedVariant>, Vec<String>)> = body.deserialize();
    told.is_ok_and(|(_, changed, invalidated)| {
        let mut told = changed.keys().chain(&invalidated);
        told.any(|name| names.contains(&name.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_this_host_are_none_of_the_link() {
        let shown = |address: &str| server_on("wan0", address.parse().unwrap()).map(|server| server.to_string());
        for here in [
            "127.0.0.53",
            "::1",
            "::",
            "0.0.0.0",
            "::ffff:127.0.0.1",
            "ff02::fb",
            "224.0.0.251",
        ] {
            assert_eq!(shown(here), None, "{here}");
        }
        assert_eq!(shown("fe80::1").as_deref(), Some("fe80::1%wan0"));
        assert_eq!(shown("2001:db8::1").as_deref(), Some("2001:db8::1"));
        assert_eq!(shown("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn addresses_have_four_or_sixteen_bytes() {
        assert_eq!(address_of(&[192, 0, 2, 1]), Some([192, 0, 2, 1].into()));
        assert_eq!(address_of(&[0; 16]), Some([0; 16].into()));
        for wrong in [0, 3, 5, 15, 17] {
            assert_eq!(address_of(&vec![0; wrong]), None, "{wrong}");
        }
    }
}
