//! The kinds of the frames that are not control frames. (Those have theirs in [`crate::Control::kind`].)

/// Nothing happened, and the sender is still there. No payload, channel 0.
pub const HEARTBEAT: u8 = 0x08;
/// A message for an exchange: [`crate::Publish`].
pub const PUBLISH: u8 = 0x40;
/// A message for a consumer: [`crate::Deliver`].
pub const DELIVER: u8 = 0x41;
/// What becomes of deliveries: [`crate::Settle`].
pub const SETTLE: u8 = 0x42;
/// What became of publishes: [`crate::Confirm`].
pub const CONFIRM: u8 = 0x43;
/// A mandatory message that found no queue: [`crate::Return`].
pub const RETURN: u8 = 0x44;
/// More deliveries for a consumer without acknowledgements: [`crate::Credit`].
pub const CREDIT: u8 = 0x45;
/// Settles that are on disk: [`crate::Settle`], sent back.
pub const SETTLED: u8 = 0x46;
