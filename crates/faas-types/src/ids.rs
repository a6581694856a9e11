//! Identifiers. Each is an opaque string on the wire; who makes one decides how it looks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String)]
        pub struct $name(pub String);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<String> for $name {
            fn from(value: String) -> Self {
                Self(value)
            }
        }
    };
}

id!(
    /// One HTTP request: given by the client in `x-request-id`, or made by the gateway.
    RequestId
);
id!(
    /// One run of one command.
    ExecutionId
);
id!(
    /// One isolation unit of any backend. Also names its directory, its cgroups and its hostname.
    SandboxId
);
id!(
    /// One gateway's data directory: the mark on every host resource it makes.
    GatewayId
);
id!(
    /// One instance.
    InstanceId
);
id!(
    /// One snapshot.
    SnapshotId
);
id!(
    /// Whose something is. There is one, `default`, as long as there are no API keys.
    TenantId
);
