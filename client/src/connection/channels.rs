//! Which channel number belongs to whom.

use std::sync::Arc;

use leveret_protocol::ReplyCode;
use parking_lot::Mutex;

use super::subscription::Subscription;
use super::window::Window;
use crate::error::Refusal;

/// The channel for everything that is not a publisher's or a consumer's. Requests that fail on it do not close it.
pub(crate) const CONTROL: u16 = 1;

/// Whose a channel is.
#[derive(Debug, Clone)]
pub(crate) enum Owner {
    Publisher(Arc<Window>),
    Consumer(Arc<Subscription>),
}

/// The channels of a client. A publisher or consumer keeps its number on every connection that follows.
#[derive(Debug, Default)]
pub(crate) struct Channels(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// The first is the one after [`CONTROL`].
    slots: Vec<Slot>,
    channels_max: u16,
}

#[derive(Debug, Clone, Default)]
enum Slot {
    #[default]
    Free,
    Taken {
        owner: Owner,
        /// Whether it is open, or on its way to be, on the present connection.
        opened: bool,
    },
    /// The broker was asked to close it, and has not answered: its number must not be opened yet.
    Closing,
}

/// Every channel that the broker grants is in use.
#[derive(Debug)]
pub(crate) struct NoChannelLeft {
    pub(crate) max: u16,
}

impl Channels {
    /// A new connection grants this many; nothing is open on it. Returns the owners of numbers that are no
    /// longer granted.
    pub(crate) fn connected(&self, channels_max: u16) -> Vec<Owner> {
        let mut table = self.0.lock();
        table.channels_max = channels_max;
        for slot in &mut table.slots {
            match slot {
                Slot::Closing => *slot = Slot::Free,
                Slot::Taken { opened, .. } => *opened = false,
                Slot::Free => {}
            }
        }
        let granted = usize::from(channels_max.saturating_sub(CONTROL));
        let beyond = table.slots.len().min(granted)..;
        table.slots.drain(beyond).filter_map(|slot| slot.owner().cloned()).collect()
    }

    /// Gives the lowest free number to an owner that is made with it.
    pub(crate) fn take(&self, owner: impl FnOnce(u16) -> Owner) -> Result<u16, NoChannelLeft> {
        let mut table = self.0.lock();
        let at = table.slots.iter().position(|slot| matches!(slot, Slot::Free)).unwrap_or(table.slots.len());
        let max = table.channels_max;
        let number = u16::try_from(at).ok().and_then(|at| at.checked_add(CONTROL + 1));
        let Some(number) = number.filter(|number| *number <= max) else {
            return Err(NoChannelLeft { max });
        };
        let slot = Slot::Taken { owner: owner(number), opened: false };
        match table.slots.get_mut(at) {
            Some(free) => *free = slot,
            None => table.slots.push(slot),
        }
        Ok(number)
    }

    /// Whose it is, if it is anybody's.
    pub(crate) fn owner(&self, channel: u16) -> Option<Owner> {
        self.0.lock().slots.get(index(channel)?)?.owner().cloned()
    }

    /// Opens a channel that still has an owner, unless it is open: `send` sends the request under the lock, so
    /// that the one that closes the channel cannot come before it. Returns whether the channel has an owner.
    pub(crate) fn open(&self, channel: u16, send: impl FnOnce()) -> bool {
        let mut table = self.0.lock();
        let slot = index(channel).and_then(|at| table.slots.get_mut(at));
        let Some(Slot::Taken { opened, .. }) = slot else { return false };
        if !std::mem::replace(opened, true) {
            send();
        }
        true
    }

    /// The broker closed the channel, or did not open it.
    pub(crate) fn not_open(&self, channel: u16) {
        let mut table = self.0.lock();
        let slot = index(channel).and_then(|at| table.slots.get_mut(at));
        if let Some(Slot::Taken { opened, .. }) = slot {
            *opened = false;
        }
    }

    /// The owner is gone. If the channel is open, `send` asks the broker to close it, and the number is free
    /// when the answer comes; if that cannot be asked, or need not be, the number is free at once.
    pub(crate) fn close(&self, channel: u16, send: impl FnOnce() -> bool) {
        let mut table = self.0.lock();
        let Some(slot) = index(channel).and_then(|at| table.slots.get_mut(at)) else { return };
        let Slot::Taken { opened, .. } = slot else { return };
        let to = if *opened && send() { Slot::Closing } else { Slot::Free };
        let owned = std::mem::replace(slot, to);
        drop(table);
        drop(owned);
    }

    /// The number may be given away again.
    pub(crate) fn free(&self, channel: u16) {
        let mut table = self.0.lock();
        let Some(slot) = index(channel).and_then(|at| table.slots.get_mut(at)) else { return };
        let owned = std::mem::take(slot);
        drop(table);
        drop(owned);
    }

    /// Everybody, in the order of their numbers.
    pub(crate) fn owners(&self) -> Vec<Owner> {
        self.0.lock().slots.iter().filter_map(|slot| slot.owner().cloned()).collect()
    }
}

impl Slot {
    fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Taken { owner, .. } => Some(owner),
            Self::Free | Self::Closing => None,
        }
    }
}

impl Owner {
    pub(crate) fn channel(&self) -> u16 {
        match self {
            Self::Publisher(window) => window.channel,
            Self::Consumer(subscription) => subscription.channel,
        }
    }
}

impl Owner {
    /// Whether it ran before, and is refused because somebody has the queue to himself: until the broker notices
    /// the loss, that is the consumer's own former self.
    pub(crate) fn may_be_blocked_by_itself(&self, refusal: &Refusal) -> bool {
        match self {
            Self::Publisher(_) => false,
            Self::Consumer(subscription) => refusal.code == ReplyCode::NotAllowed && subscription.has_run(),
        }
    }
}

fn index(channel: u16) -> Option<usize> {
    channel.checked_sub(CONTROL + 1).map(usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::window::WindowOptions;

    fn publisher(channel: u16) -> Owner {
        let options = WindowOptions { in_flight_max: 1, persistent: true, mandatory: true, confirms: true };
        Owner::Publisher(Arc::new(Window::new(channel, options)))
    }

    #[test]
    fn numbers_are_reused_only_when_the_broker_has_closed_them() {
        let channels = Channels::default();
        assert!(channels.connected(3).is_empty());
        assert_eq!(channels.take(publisher).unwrap(), 2);
        assert_eq!(channels.take(publisher).unwrap(), 3);
        assert_eq!(channels.take(publisher).unwrap_err().max, 3);
        assert!(channels.open(2, || {}));
        channels.close(2, || true);
        assert!(channels.take(publisher).is_err());
        channels.free(2);
        assert_eq!(channels.take(publisher).unwrap(), 2);
        channels.close(2, || unreachable!("it is not open on this connection"));
        assert_eq!(channels.take(publisher).unwrap(), 2);
    }

    #[test]
    fn a_smaller_grant_ends_those_beyond_it() {
        let channels = Channels::default();
        channels.connected(10);
        for _ in 0..4 {
            channels.take(publisher).unwrap();
        }
        let beyond: Vec<u16> = channels.connected(3).iter().map(Owner::channel).collect();
        assert_eq!(beyond, [4, 5]);
        assert_eq!(channels.owners().len(), 2);
    }
}
