//! Method calls, properties and signals, as the managers of links need them.

use std::collections::BTreeMap;

use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::{Connection, MatchRule, OwnedVariant, Proxy};

pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Calls a method and never starts the service for it.
pub(super) async fn call<B, R>(
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
pub(super) async fn property<T>(
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

/// The signals by which `service` reports changed properties of one of its interfaces.
pub(super) fn property_changes(service: &'static str, interface: &'static str) -> zbus::Result<MatchRule<'static>> {
    MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender(service)
        .interface(PROPERTIES)
        .member("PropertiesChanged")
        .arg(0, interface)
        .build()
}

/// The signal by which the bus reports that `service` came, went or was replaced.
pub(super) fn owner_changes(service: &'static str) -> zbus::Result<MatchRule<'static>> {
    MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(0, service)
        .build()
}

pub(super) fn is_owner_change(signal: &zbus::Message) -> bool {
    signal
        .header()
        .member()
        .is_some_and(|member| member == "NameOwnerChanged")
}

/// Whether a signal reports a change of one of these properties.
pub(super) fn changes_any(signal: &zbus::Message, names: &[&str]) -> bool {
    let body = signal.body();
    let told: zbus::Result<(String, BTreeMap<String, OwnedVariant>, Vec<String>)> = body.deserialize();
    told.is_ok_and(|(_, changed, invalidated)| {
        let mut told = changed.keys().chain(&invalidated);
        told.any(|name| names.contains(&name.as_str()))
    })
}
