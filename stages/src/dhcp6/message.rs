//! The wire format (RFC 8415 sections 8 and 21), as much of it as a client for prefixes needs. Any octets may come
//! in. A fault in a part that the client reads makes the whole message an error; the other parts are kept as they
//! are.

use std::fmt;

use ipnet::Ipv6Net;

use super::duid::Duid;

/// Message types between clients and servers (section 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum MessageType {
    Solicit = 1,
    Advertise = 2,
    Request = 3,
    Renew = 5,
    Rebind = 6,
    Reply = 7,
    Release = 8,
}

impl MessageType {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Solicit,
            2 => Self::Advertise,
            3 => Self::Request,
            5 => Self::Renew,
            6 => Self::Rebind,
            7 => Self::Reply,
            8 => Self::Release,
            _ => return None,
        })
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A message (section 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp6Message {
    /// Message type.
    pub kind: MessageType,
    /// Transaction id, 24 bits.
    pub transaction: u32,
    /// The options, in their order.
    pub options: Vec<DhcpOption>,
}

/// An option (section 21).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DhcpOption {
    /// OPTION_CLIENTID (21.2).
    ClientId(Duid),
    /// OPTION_SERVERID (21.3).
    ServerId(Duid),
    /// OPTION_ORO (21.7): the codes of options that the client wants.
    OptionRequest(Vec<u16>),
    /// OPTION_PREFERENCE (21.8).
    Preference(u8),
    /// OPTION_ELAPSED_TIME (21.9), in hundredths of a second.
    ElapsedTime(u16),
    /// OPTION_STATUS_CODE (21.13).
    Status(ServerStatus),
    /// OPTION_RAPID_COMMIT (21.14).
    RapidCommit,
    /// OPTION_IA_PD (21.21).
    IaPd(IaPd),
    /// OPTION_SOL_MAX_RT (21.24), in seconds.
    SolMaxRt(u32),
    /// Any other.
    Other {
        /// Its code.
        code: u16,
        /// Its data.
        data: Vec<u8>,
    },
}

/// An identity association for prefix delegation (section 21.21).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IaPd {
    /// Which of the client's.
    pub iaid: u32,
    /// Seconds until Renew; 0 = the client chooses.
    pub t1: u32,
    /// Seconds until Rebind; 0 = the client chooses.
    pub t2: u32,
    /// The prefixes.
    pub prefixes: Vec<IaPrefix>,
    /// How it went; absent = success.
    pub status: Option<ServerStatus>,
}

/// A prefix in an [`IaPd`] (section 21.22).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IaPrefix {
    /// Seconds for which it is preferred.
    pub preferred: u32,
    /// Seconds for which it is valid.
    pub valid: u32,
    /// The prefix, with the bits behind its length set to zero.
    pub prefix: Ipv6Net,
    /// How it went; absent = success.
    pub status: Option<ServerStatus>,
}

/// A status with the server's words (section 21.13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// What it is.
    pub code: StatusCode,
    /// The server's words, of printable characters only.
    pub message: String,
}

/// A status code by its number (section 21.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusCode(pub u16);

impl StatusCode {
    /// Success.
    pub const SUCCESS: Self = Self(0);
    /// UnspecFail.
    pub const UNSPEC_FAIL: Self = Self(1);
    /// NoBinding: the server does not know the lease.
    pub const NO_BINDING: Self = Self(3);
    /// NoPrefixAvail.
    pub const NO_PREFIX_AVAIL: Self = Self(6);
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "Success",
            1 => "UnspecFail",
            2 => "NoAddrsAvail",
            3 => "NoBinding",
            4 => "NotOnLink",
            5 => "UseMulticast",
            6 => "NoPrefixAvail",
            other => return write!(f, "status {other}"),
        };
        f.write_str(name)
    }
}

impl fmt::Display for ServerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        Ok(())
    }
}

/// Why octets are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer than four octets.
    #[error("the message is shorter than its header")]
    Short,
    /// No client and no server sends such a message.
    #[error("message type {0} is not one that a client or a server sends")]
    Type(u8),
    /// An option is longer than the message or the option around it.
    #[error("option {0} is longer than the message or option around it")]
    Truncated(u16),
    /// Behind the last option are too few octets for another one.
    #[error("{0} octets are left over after the last option")]
    LeftOver(usize),
    /// An option whose length cannot be.
    #[error("option {code} cannot be {length} octets long")]
    Length {
        /// Its code.
        code: u16,
        /// Its length.
        length: usize,
    },
    /// An option occurs twice that may occur once.
    #[error("option {0} is there more than once")]
    Repeated(u16),
    /// A prefix length over 128.
    #[error("a prefix cannot be {0} bits long")]
    PrefixLength(u8),
}

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const ORO: u16 = 6;
const PREFERENCE: u16 = 7;
const ELAPSED_TIME: u16 = 8;
const STATUS_CODE: u16 = 13;
const RAPID_COMMIT: u16 = 14;
const IA_PD: u16 = 25;
const IA_PREFIX: u16 = 26;
pub(super) const SOL_MAX_RT: u16 = 82;

/// Options that a message has once at most (section 21: "appear only once, unless specified otherwise").
const ONCE: &[u16] = &[
    CLIENT_ID,
    SERVER_ID,
    PREFERENCE,
    ELAPSED_TIME,
    STATUS_CODE,
    RAPID_COMMIT,
    SOL_MAX_RT,
];

impl Dhcp6Message {
    /// Reads a message.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        let [kind, a, b, c, rest @ ..] = octets else {
            return Err(DecodeError::Short);
        };
        let kind = MessageType::from_code(*kind).ok_or(DecodeError::Type(*kind))?;
        let mut options = Vec::new();
        let mut seen = Vec::new();
        each_option(rest, |code, data| {
            once(&mut seen, ONCE, code)?;
            options.push(DhcpOption::decode(code, data)?);
            Ok(())
        })?;
        Ok(Self {
            kind,
            transaction: u32::from_be_bytes([0, *a, *b, *c]),
            options,
        })
    }

    /// The message as octets.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind as u8];
        out.extend_from_slice(&self.transaction.to_be_bytes()[1..]);
        for option in &self.options {
            option.encode(&mut out);
        }
        out
    }

    /// What the first option of this kind says.
    pub(super) fn find<'a, T>(&'a self, of: impl Fn(&'a DhcpOption) -> Option<T>) -> Option<T> {
        self.options.iter().find_map(of)
    }
}

impl DhcpOption {
    fn decode(code: u16, data: &[u8]) -> Result<Self, DecodeError> {
        let wrong_length = DecodeError::Length {
            code,
            length: data.len(),
        };
        Ok(match (code, data) {
            (CLIENT_ID, _) => Self::ClientId(Duid::new(data).ok_or(wrong_length)?),
            (SERVER_ID, _) => Self::ServerId(Duid::new(data).ok_or(wrong_length)?),
            (ORO, _) if data.len().is_multiple_of(2) => {
                let codes = data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
                Self::OptionRequest(codes.collect())
            }
            (PREFERENCE, [preference]) => Self::Preference(*preference),
            (ELAPSED_TIME, [a, b]) => Self::ElapsedTime(u16::from_be_bytes([*a, *b])),
            (STATUS_CODE, [_, _, ..]) => Self::Status(ServerStatus::decode(data)?),
            (RAPID_COMMIT, []) => Self::RapidCommit,
            (IA_PD, _) => Self::IaPd(IaPd::decode(data)?),
            (SOL_MAX_RT, [a, b, c, d]) => Self::SolMaxRt(u32::from_be_bytes([*a, *b, *c, *d])),
            (ORO | PREFERENCE | ELAPSED_TIME | STATUS_CODE | RAPID_COMMIT | SOL_MAX_RT, _) => return Err(wrong_length),
            _ => Self::Other {
                code,
                data: data.to_vec(),
            },
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::ClientId(duid) => put(out, CLIENT_ID, |out| out.extend_from_slice(duid.octets())),
            Self::ServerId(duid) => put(out, SERVER_ID, |out| out.extend_from_slice(duid.octets())),
            Self::OptionRequest(codes) => put(out, ORO, |out| {
                codes.iter().for_each(|code| out.extend_from_slice(&code.to_be_bytes()));
            }),
            Self::Preference(preference) => put(out, PREFERENCE, |out| out.push(*preference)),
            Self::ElapsedTime(time) => put(out, ELAPSED_TIME, |out| out.extend_from_slice(&time.to_be_bytes())),
            Self::Status(status) => status.encode(out),
            Self::RapidCommit => put(out, RAPID_COMMIT, |_| ()),
            Self::IaPd(ia) => put(out, IA_PD, |out| ia.encode(out)),
            Self::SolMaxRt(seconds) => put(out, SOL_MAX_RT, |out| out.extend_from_slice(&seconds.to_be_bytes())),
            Self::Other { code, data } => put(out, *code, |out| out.extend_from_slice(data)),
        }
    }
}

impl IaPd {
    fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        let too_short = DecodeError::Length {
            code: IA_PD,
            length: data.len(),
        };
        let (iaid, rest) = u32_of(data).ok_or(too_short)?;
        let (t1, rest) = u32_of(rest).ok_or(too_short)?;
        let (t2, rest) = u32_of(rest).ok_or(too_short)?;
        let mut ia = Self {
            iaid,
            t1,
            t2,
            ..Self::default()
        };
        let mut seen = Vec::new();
        each_option(rest, |code, data| {
            once(&mut seen, &[STATUS_CODE], code)?;
            match code {
                IA_PREFIX => ia.prefixes.push(IaPrefix::decode(data)?),
                STATUS_CODE => ia.status = Some(ServerStatus::decode(data)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(ia)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.iaid, self.t1, self.t2] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        for prefix in &self.prefixes {
            put(out, IA_PREFIX, |out| prefix.encode(out));
        }
        if let Some(status) = &self.status {
            status.encode(out);
        }
    }
}

impl IaPrefix {
    fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        let too_short = DecodeError::Length {
            code: IA_PREFIX,
            length: data.len(),
        };
        let (preferred, rest) = u32_of(data).ok_or(too_short)?;
        let (valid, rest) = u32_of(rest).ok_or(too_short)?;
        let (length, rest) = rest.split_first().ok_or(too_short)?;
        let (address, rest) = rest.split_first_chunk::<16>().ok_or(too_short)?;
        let prefix = Ipv6Net::new((*address).into(), *length).map_err(|_| DecodeError::PrefixLength(*length))?;
        let mut seen = Vec::new();
        let mut status = None;
        each_option(rest, |code, data| {
            once(&mut seen, &[STATUS_CODE], code)?;
            if code == STATUS_CODE {
                status = Some(ServerStatus::decode(data)?);
            }
            Ok(())
        })?;
        Ok(Self {
            preferred,
            valid,
            prefix: prefix.trunc(),
            status,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.preferred.to_be_bytes());
        out.extend_from_slice(&self.valid.to_be_bytes());
        out.push(self.prefix.prefix_len());
        out.extend_from_slice(&self.prefix.addr().octets());
        if let Some(status) = &self.status {
            status.encode(out);
        }
    }
}

impl ServerStatus {
    fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        let [a, b, message @ ..] = data else {
            return Err(DecodeError::Length {
                code: STATUS_CODE,
                length: data.len(),
            });
        };
        // The text goes to logs and terminals, so it must contain no control characters and must be short.
        let message = String::from_utf8_lossy(message);
        let printable = message.chars().map(|c| if c.is_control() { ' ' } else { c });
        Ok(Self {
            code: StatusCode(u16::from_be_bytes([*a, *b])),
            message: printable.take(120).collect::<String>().trim().to_owned(),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put(out, STATUS_CODE, |out| {
            out.extend_from_slice(&self.code.0.to_be_bytes());
            out.extend_from_slice(self.message.as_bytes());
        });
    }
}

/// Walks over options laid one after the other.
fn each_option(
    mut rest: &[u8],
    mut visit: impl FnMut(u16, &[u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    while let [a, b, c, d, tail @ ..] = rest {
        let code = u16::from_be_bytes([*a, *b]);
        let length = usize::from(u16::from_be_bytes([*c, *d]));
        let (data, after) = tail.split_at_checked(length).ok_or(DecodeError::Truncated(code))?;
        visit(code, data)?;
        rest = after;
    }
    match rest.len() {
        0 => Ok(()),
        left => Err(DecodeError::LeftOver(left)),
    }
}

fn once(seen: &mut Vec<u16>, singles: &[u16], code: u16) -> Result<(), DecodeError> {
    if singles.contains(&code) {
        if seen.contains(&code) {
            return Err(DecodeError::Repeated(code));
        }
        seen.push(code);
    }
    Ok(())
}

/// Appends an option. Data of more than 64 KiB is cut; none of our options is nearly as long.
fn put(out: &mut Vec<u8>, code: u16, data: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&code.to_be_bytes());
    let place = out.len();
    out.extend_from_slice(&[0, 0]);
    data(out);
    let length = u16::try_from(out.len() - place - 2).unwrap_or(u16::MAX);
    out.truncate(place + 2 + usize::from(length));
    out[place..place + 2].copy_from_slice(&length.to_be_bytes());
}

fn u32_of(data: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = data.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}
