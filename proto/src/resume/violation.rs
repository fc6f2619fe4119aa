//! How a peer can break the protocol of an attachment. Each ends the session, and each says in one
//! line what the peer did.

/// What the peer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The peer asks for bytes it had acknowledged and which are gone: it is not the end that
    /// received them.
    #[error(
        "the other end lost the session's state: it has {has} bytes and had acknowledged {acknowledged}"
    )]
    LostState {
        /// Offset in its START.
        has: u64,
        /// What it had acknowledged before.
        acknowledged: u64,
    },
    /// Bytes acknowledged that were never sent.
    #[error("the other end acknowledges {acknowledged} bytes of {sent} sent")]
    AcknowledgedUnsent {
        /// What it acknowledges.
        acknowledged: u64,
        /// What was ever sent.
        sent: u64,
    },
    /// An acknowledgement below an earlier one.
    #[error("the other end's acknowledgement went back from {from} to {to}")]
    AcknowledgementWentBack {
        /// The earlier one.
        from: u64,
        /// This one.
        to: u64,
    },
    /// Less room than was promised.
    #[error("the other end took back room it had given: from {from} to {to}")]
    LimitWentBack {
        /// Promised.
        from: u64,
        /// Now.
        to: u64,
    },
    /// Bytes are missing before these.
    #[error("the other end sent offset {got} where {expected} comes next")]
    Gap {
        /// The next offset.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// Bytes beyond the room given.
    #[error("the other end sent up to offset {end} with room up to {limit}")]
    BeyondLimit {
        /// End of what it sent.
        end: u64,
        /// The room.
        limit: u64,
    },
    /// A DATA frame longer than [`super::MAX_PAYLOAD`].
    #[error("a DATA frame of {0} bytes")]
    DataTooLong(u64),
    /// A DATA frame without data.
    #[error("a DATA frame of no bytes")]
    DataEmpty,
    /// Bytes after the end, or the end at another place.
    #[error("the other end went on to offset {got} after ending at {end}")]
    AfterEnd {
        /// The end it had declared.
        end: u64,
        /// What it sent then.
        got: u64,
    },
    /// An attachment that does not begin with START.
    #[error("the attachment does not begin with START")]
    NoStart,
    /// A second START.
    #[error("a second START on one attachment")]
    SecondStart,
    /// A START that cannot be read, or a longer one than any version has.
    #[error("a malformed START")]
    MalformedStart,
    /// A version that never was.
    #[error("version {0} of the resume layer does not exist")]
    Version(u64),
    /// A frame this version does not have.
    #[error("an unknown frame of type {0:#04x}")]
    UnknownFrame(u8),
    /// A reset code above 32 bits.
    #[error("a reset code of {0}")]
    ResetCode(u64),
    /// A confirmation of a reset that was never sent.
    #[error("the other end confirms a reset nobody sent")]
    UnaskedConfirmation,
}
