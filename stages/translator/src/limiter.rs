//! The rate limit of generated ICMP errors: a token bucket fed by the caller's clock.

use crate::config::IcmpErrors;

#[derive(Debug)]
pub(crate) struct Limiter {
    policy: IcmpErrors,
    /// Thousandths of an error.
    tokens: u64,
    last_ms: u64,
}

impl Limiter {
    pub(crate) fn new(policy: IcmpErrors) -> Self {
        let tokens = match policy {
            IcmpErrors::Limited { burst, .. } => u64::from(burst) * 1000,
            _ => 0,
        };
        Self {
            policy,
            tokens,
            last_ms: 0,
        }
    }

    /// Whether one more error may be sent at `now_ms`; a clock that goes back adds nothing.
    pub(crate) fn allow(&mut self, now_ms: u64) -> bool {
        let (per_second, burst) = match self.policy {
            IcmpErrors::Off => return false,
            IcmpErrors::Unlimited => return true,
            IcmpErrors::Limited { per_second, burst } => (u64::from(per_second), u64::from(burst)),
        };
        let passed = now_ms.saturating_sub(self.last_ms);
        self.last_ms = self.last_ms.max(now_ms);
        self.tokens = self
            .tokens
            .saturating_add(passed.saturating_mul(per_second))
            .min(burst * 1000);
        match self.tokens.checked_sub(1000) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let mut limiter = Limiter::new(IcmpErrors::Limited {
            per_second: 10,
            burst: 3,
        });
        let allowed = |limiter: &mut Limiter, now| (0..100).filter(|_| limiter.allow(now)).count();
        assert_eq!(allowed(&mut limiter, 5_000), 3);
        assert_eq!(allowed(&mut limiter, 5_100), 1);
        assert_eq!(allowed(&mut limiter, 5_050), 0);
        assert_eq!(allowed(&mut limiter, u64::MAX), 3);
    }
}
