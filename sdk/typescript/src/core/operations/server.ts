// What the gateway says of itself: `/api/v1/capabilities`, `/api/v1/admin/leaks`, `/health`, `/version`.

import type { CallOptions } from "../../options.js";
import type {
  Capabilities,
  Health,
  Leak,
  RuntimeCapabilities,
  RuntimeHealth,
  StoreHealth,
  Support,
  VersionInfo,
} from "../../types.js";
import type { Call } from "../call.js";
import { checkedHttpTimeoutMs, refuseUnknown } from "../config.js";
import { each, Members } from "../decode.js";

/** What every runtime can do. */
export function capabilities(options: CallOptions): Call<Capabilities> {
  return get("/api/v1/capabilities", options, [200], (members) => ({
    defaultRuntime: members.optionalString("default_runtime"),
    defaultImage: members.string("default_image"),
    runtimes: members.map("runtimes", readRuntimeCapabilities),
  }));
}

/** Whether the gateway can work. An unhealthy one answers 503 with the same body: that is a result too. */
export function health(options: CallOptions): Call<Health> {
  return get("/health", options, [200, 503], (members) => ({
    status: members.string("status"),
    version: members.string("version"),
    uptimeMs: members.integer("uptime_ms"),
    runtimes: members.map("runtimes", readRuntimeHealth),
    store: readStoreHealth(members.child("store")),
    docker: members.boolean("docker"),
    firecracker: members.boolean("firecracker"),
  }));
}

/** The gateway's versions. */
export function version(options: CallOptions): Call<VersionInfo> {
  return get("/version", options, [200], (members) => ({
    version: members.string("version"),
    api: members.string("api"),
    guestProtocol: members.integer("guest_protocol"),
    guestAgent: members.string("guest_agent"),
  }));
}

/** What is on the gateway's host with its mark and belongs to nobody. */
export function leaks(options: CallOptions): Call<Leak[]> {
  const read = (members: Members): Leak => ({
    runtime: members.string("runtime"),
    kind: members.string("kind"),
    name: members.string("name"),
  });
  return getValue("/api/v1/admin/leaks", options, [200], (value) => each(value).map(read));
}

function get<T>(
  path: string,
  options: CallOptions,
  resultStatuses: readonly number[],
  read: (members: Members) => T,
): Call<T> {
  return getValue(path, options, resultStatuses, (value) => read(new Members(value)));
}

function getValue<T>(
  path: string,
  options: CallOptions,
  resultStatuses: readonly number[],
  read: (value: unknown) => T,
): Call<T> {
  refuseUnknown(options, ["httpTimeoutMs", "signal"]);
  return {
    method: "GET",
    path,
    headers: {},
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    defaultHttpTimeoutMs: 30_000,
    signal: options.signal,
    resultStatuses,
    read,
  };
}

function readRuntimeCapabilities(members: Members): RuntimeCapabilities {
  const limits = members.child("limits");
  return {
    available: members.boolean("available"),
    reason: members.optionalString("reason"),
    features: members.map("features", readSupport),
    limits: {
      memory: readSupport(limits.child("memory")),
      cpu: readSupport(limits.child("cpu")),
      pids: readSupport(limits.child("pids")),
      disk: readSupport(limits.child("disk")),
    },
  };
}

function readSupport(members: Members): Support {
  return { supported: members.boolean("supported"), detail: members.string("detail") };
}

function readStoreHealth(members: Members): StoreHealth {
  return {
    kind: members.string("kind"),
    available: members.boolean("available"),
    reason: members.optionalString("reason"),
  };
}

function readRuntimeHealth(members: Members): RuntimeHealth {
  return {
    available: members.boolean("available"),
    reason: members.optionalString("reason"),
    unenforcedLimits: members.strings("unenforced_limits"),
  };
}
