//! As whom the gateway runs, and in what its sandboxes are. The attempts are the same everywhere.

use std::ops::Deref;

use faas_test_support::gateway::{Builder, Gateway};
use faas_test_support::needs::{self, Capability};
use faas_test_support::users::User;

/// A group that the starter of the gateway is in and that nobody of a sandbox may be in.
pub(crate) const GROUP: u32 = 4242;

/// Where a test stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The host's root, in the image `host`.
    Rootful,
    /// An ordinary user without further ids, in the image `host`. What must not be reached is this user's.
    OneId,
    /// An ordinary user with a range of ids, likewise.
    Range,
    /// The host's root, in an image of the store.
    InImage,
}

impl Standing {
    /// Whether the machine lacks what it takes; says so as [`needs::missing`] does.
    pub(crate) fn is_missing(self, test: &str) -> bool {
        let capabilities: &[Capability] = match self {
            Self::Rootful | Self::OneId => &[Capability::Root],
            Self::Range => &[Capability::Root, Capability::Uidmap],
            Self::InImage => &[Capability::Root, Capability::TestImages],
        };
        capabilities.iter().any(|capability| needs::missing(*capability, test))
    }

    /// Whether the gateway is an ordinary user's.
    pub(crate) const fn is_rootless(self) -> bool {
        matches!(self, Self::OneId | Self::Range)
    }

    /// As whom attempts are made. With one id there is nobody but root: `judge` sees that others are refused.
    pub(crate) const fn users(self) -> &'static [&'static str] {
        match self {
            Self::OneId => &["0:0"],
            Self::Rootful | Self::Range => &["0:0", "1000:1000"],
            // The image knows a user 1000, and has it in a group.
            Self::InImage => &["0:0", "1001:1001"],
        }
    }

    /// The user that the gateway is to run as.
    pub(crate) fn user(self) -> Option<User> {
        match self {
            Self::OneId => Some(User::make(false)),
            Self::Range => Some(User::make(true)),
            Self::Rootful | Self::InImage => None,
        }
    }

    /// What is as it should be here and nowhere else, as the attacker takes it: what `/proc/self/uid_map` has; whose
    /// `/usr` is.
    pub(crate) const fn option(self) -> Option<&'static str> {
        match self {
            Self::Rootful => None,
            Self::OneId => Some("ids=0:1"),
            Self::Range => Some("ids=1:65536"),
            Self::InImage => Some("usr=own"),
        }
    }

    /// The ids on the host that processes of a sandbox may have.
    pub(crate) fn ids_on_the_host(self, user: Option<&User>) -> std::ops::Range<u32> {
        match (self, user) {
            (Self::OneId, Some(user)) => user.uid..user.uid + 1,
            (Self::Range, Some(user)) => {
                let (first, _) = user.range().unwrap();
                first..first + 65536
            }
            _ => 0x7000_0000..0x8000_0000,
        }
    }

    fn builder(self, user: Option<&User>, groups: &[u32]) -> Builder {
        let builder = Gateway::builder(env!("CARGO_BIN_EXE_faas-gateway-server"));
        match (self, user) {
            (_, Some(user)) => builder.run_as(user, groups),
            (Self::InImage, None) => builder.image("alpine"),
            (_, None) => builder,
        }
    }

    /// Starts a gateway; `more` says more about it.
    pub(crate) fn start(self, more: impl FnOnce(Builder) -> Builder) -> Served {
        let user = self.user();
        Served { gateway: more(self.builder(user.as_ref(), &[])).start(), user }
    }

    /// The same as a user that is there, and that is in a group of the host besides.
    pub(crate) fn start_as(self, user: Option<User>, more: impl FnOnce(Builder) -> Builder) -> Served {
        Served { gateway: more(self.builder(user.as_ref(), &[GROUP])).start(), user }
    }

    /// Two gateways of one user.
    pub(crate) fn start_two(self, more: impl Fn(Builder) -> Builder) -> (Served, Served) {
        let user = self.user();
        let [one, other] = [(); 2].map(|()| more(self.builder(user.as_ref(), &[])).start());
        (Served { gateway: one, user: None }, Served { gateway: other, user })
    }
}

/// A gateway, and the user that it runs as, who is there for as long.
pub(crate) struct Served {
    gateway: Gateway,
    user: Option<User>,
}

impl Deref for Served {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

impl Served {
    pub(crate) const fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// As [`Gateway::stop`].
    pub(crate) fn stop(self) {
        self.gateway.stop();
    }
}
