//! When to send router solicitations (RFC 4861 section 6.3.7).

/// `MAX_RTR_SOLICITATIONS` of RFC 4861 section 10.
const MOST: u8 = 3;
/// `RTR_SOLICITATION_INTERVAL` of RFC 4861 section 10, in milliseconds.
pub(super) const INTERVAL: u64 = 4_000;
/// The shortest time between two solicitations in milliseconds, however often the carrier comes and goes.
const APART: u64 = 1_000;
/// After how many milliseconds a failed attempt is repeated: the first pause, and the longest.
const RETRY: (u64, u64) = (250, 60_000);

/// The solicitations of one device. Times are milliseconds.
#[derive(Debug, Default)]
pub(super) struct Solicitor {
    sent: u8,
    next: Option<u64>,
    /// When the last one was sent.
    last: Option<u64>,
    /// How long to wait if the next attempt fails, too. `None` = the last attempt did not fail.
    retry: Option<u64>,
}

impl Solicitor {
    /// Begins again, without the random delay of RFC 4861. That delay is for hosts that all start at once, and the
    /// kernel or the network manager of this host has waited for it before the link had an address.
    pub(super) fn start(&mut self, now: u64) {
        self.stop();
        self.next = Some(self.last.map_or(now, |last| now.max(last + APART)));
    }

    pub(super) fn stop(&mut self) {
        *self = Self {
            last: self.last,
            ..Self::default()
        };
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.next
    }

    pub(super) fn sent(&mut self, now: u64) {
        self.sent += 1;
        self.last = Some(now);
        self.retry = None;
        self.next = (self.sent < MOST).then_some(now + INTERVAL);
    }

    /// It could not be sent, probably because the link has no address yet.
    pub(super) fn failed(&mut self, now: u64) {
        let wait = self.retry.unwrap_or(RETRY.0);
        self.next = Some(now + wait);
        self.retry = Some((wait * 2).min(RETRY.1));
    }

    /// Something changed on the link, so a failed attempt may succeed now.
    pub(super) fn hurry(&mut self, now: u64) {
        if self.retry.is_some() {
            self.retry = None;
            self.next = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_are_sent_four_seconds_apart() {
        let mut solicitor = Solicitor::default();
        assert_eq!(solicitor.next(), None);
        solicitor.start(100);
        let mut sent = Vec::new();
        while let Some(now) = solicitor.next() {
            sent.push(now);
            solicitor.sent(now);
        }
        assert_eq!(sent, [100, 4_100, 8_100]);
        solicitor.start(20_000);
        solicitor.stop();
        assert_eq!(solicitor.next(), None);
    }

    #[test]
    fn a_carrier_that_flaps_does_not_make_a_flood() {
        let mut solicitor = Solicitor::default();
        let mut sent = Vec::new();
        for now in (0..3_000).step_by(100) {
            solicitor.start(now);
            if solicitor.next().unwrap() <= now {
                sent.push(now);
                solicitor.sent(now);
            }
            solicitor.stop();
        }
        assert_eq!(sent, [0, 1_000, 2_000]);
    }

    #[test]
    fn a_failure_does_not_count_and_is_tried_again_ever_later() {
        let mut solicitor = Solicitor::default();
        solicitor.start(0);
        let mut tried = Vec::new();
        for _ in 0..10 {
            let now = solicitor.next().unwrap();
            tried.push(now);
            solicitor.failed(now);
        }
        assert_eq!(tried[..4], [0, 250, 750, 1_750]);
        assert_eq!(tried[9], tried[8] + 60_000);
        solicitor.hurry(tried[9] + 1);
        assert_eq!(solicitor.next(), Some(tried[9] + 1));
        solicitor.sent(tried[9] + 1);
        // Nothing is waiting for the link now.
        solicitor.hurry(tried[9] + 2);
        assert_eq!(solicitor.next(), Some(tried[9] + 1 + INTERVAL));
    }
}
