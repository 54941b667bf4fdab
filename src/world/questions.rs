//! Questions to name servers, and their earlier answers.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clatd_stages::world::DnsAnswer;
use hickory_resolver::proto::rr::RData;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::OnChange;
use super::cache::{Cache, Question};
use crate::util::lock;

/// For how long to wait for a new answer if an old one of the same network can be used until it comes. A new answer
/// may be impossible, because the uplink has just lost its addresses; waiting would only delay the move to another
/// uplink.
const PATIENCE: Duration = Duration::from_millis(250);

/// What was answered, and what is being asked. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Questions {
    answers: Cache,
    asked: Arc<Mutex<BTreeSet<Question>>>,
}

impl Questions {
    /// The answer that has not expired; else that of `ask`; else, if that takes long, an old one. Then `notify` is
    /// called if the new answer differs. `silent`: no server can be reached, so nobody is asked if there is an old
    /// answer.
    pub(super) async fn answer<F>(
        &self,
        question: Question,
        silent: bool,
        ask: F,
        notify: &OnChange,
    ) -> io::Result<DnsAnswer<RData>>
    where
        F: Future<Output = io::Result<DnsAnswer<RData>>> + Send + 'static,
    {
        if let Some(answer) = self.answers.fresh(&question) {
            return Ok(answer);
        }
        let Some(stale) = self.answers.stale(&question) else {
            return Ok(self.answers.learn(question, ask.await?));
        };
        let Some(asking) = self.begin(&question).filter(|_| !silent) else {
            return Ok(stale);
        };
        let (sender, answered) = oneshot::channel();
        let (answers, notify, old) = (self.answers.clone(), Arc::clone(notify), stale.clone());
        tokio::spawn(async move {
            let answer = ask.await.map(|answer| answers.learn(question, answer));
            drop(asking);
            if let Err(Ok(answer)) = sender.send(answer)
                && !is_same(&answer, &old)
            {
                notify();
            }
        });
        match timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            // Late, or the runtime ends.
            Err(_) | Ok(Err(_)) => Ok(stale),
        }
    }

    /// `None` = it is being asked already.
    fn begin(&self, question: &Question) -> Option<Asking> {
        lock(&self.asked).insert(question.clone()).then(|| Asking {
            question: question.clone(),
            asked: Arc::clone(&self.asked),
        })
    }
}

/// A question that is being asked, until this is dropped.
struct Asking {
    question: Question,
    asked: Arc<Mutex<BTreeSet<Question>>>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        lock(&self.asked).remove(&self.question);
    }
}

/// Whether two answers are equal but for their lifetimes.
fn is_same(one: &DnsAnswer<RData>, other: &DnsAnswer<RData>) -> bool {
    match (one, other) {
        (DnsAnswer::Addresses { addresses: one, .. }, DnsAnswer::Addresses { addresses: other, .. }) => one == other,
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hickory_resolver::proto::rr::RecordType;
    use tokio::time::{Instant, sleep};

    use super::*;

    fn question() -> Question {
        Question {
            name: "ipv4only.arpa.".into(),
            kind: RecordType::AAAA,
            server: String::new(),
            device: "wan0".into(),
            gateways: vec![("wan0".to_owned(), Some("fe80::1".parse().unwrap()))],
        }
    }

    fn positive(address: &str) -> DnsAnswer<RData> {
        let aaaa: hickory_resolver::proto::rr::rdata::AAAA = address.parse().unwrap();
        DnsAnswer::Addresses {
            addresses: vec![RData::AAAA(aaaa)],
            ttl_s: 5,
        }
    }

    /// Asks; the server needs this long. What was answered, and after how long.
    async fn ask(
        questions: &Questions,
        takes: Duration,
        says: DnsAnswer<RData>,
        notified: &Arc<AtomicUsize>,
    ) -> (DnsAnswer<RData>, Duration) {
        let begun = Instant::now();
        let counter = Arc::clone(notified);
        let notify: OnChange = Arc::new(move || _ = counter.fetch_add(1, Ordering::SeqCst));
        let server = async move {
            sleep(takes).await;
            Ok(says)
        };
        let answer = questions.answer(question(), false, server, &notify).await.unwrap();
        (answer, begun.elapsed())
    }

    const QUICK: Duration = Duration::from_millis(20);
    const SLOW: Duration = Duration::from_secs(6);

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_is_waited_for() {
        let (questions, notified) = (Questions::default(), Arc::default());
        let (answer, took) = ask(&questions, SLOW, positive("64:ff9b::c000:aa"), &notified).await;
        assert_eq!((answer, took), (positive("64:ff9b::c000:aa"), SLOW));
        assert_eq!(notified.load(Ordering::SeqCst), 0, "who asked knows");
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_one_is_not_where_the_old_one_will_do() {
        let (questions, notified) = (Questions::default(), Arc::default());
        let (old, new) = (positive("64:ff9b::c000:aa"), positive("2001:db8:64::c000:aa"));
        ask(&questions, QUICK, old.clone(), &notified).await;
        sleep(Duration::from_secs(10)).await;
        let (answer, took) = ask(&questions, SLOW, new.clone(), &notified).await;
        assert!(is_same(&answer, &old) && took <= PATIENCE, "{answer:?} after {took:?}");
        // Nobody asks the same at the same time.
        let (answer, took) = ask(&questions, QUICK, positive("::1"), &notified).await;
        assert!(is_same(&answer, &old) && took < QUICK, "{answer:?} after {took:?}");
        assert_eq!(notified.load(Ordering::SeqCst), 0);
        sleep(SLOW).await;
        assert_eq!(notified.load(Ordering::SeqCst), 1, "it is told that it is another one");
        let (answer, took) = ask(&questions, SLOW, positive("::1"), &notified).await;
        assert!(
            is_same(&answer, &new) && took == Duration::ZERO,
            "{answer:?} after {took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_one_and_the_same_late_are_told_to_nobody() {
        let (questions, notified) = (Questions::default(), Arc::default());
        ask(&questions, QUICK, positive("64:ff9b::c000:aa"), &notified).await;
        sleep(Duration::from_secs(10)).await;
        let other = positive("2001:db8:64::c000:aa");
        let (answer, took) = ask(&questions, QUICK, other.clone(), &notified).await;
        assert_eq!((answer, took), (other.clone(), QUICK));
        sleep(Duration::from_secs(10)).await;
        ask(&questions, SLOW, other, &notified).await;
        sleep(SLOW * 2).await;
        assert_eq!(notified.load(Ordering::SeqCst), 0);
    }
}
