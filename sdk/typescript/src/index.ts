// The names that users import; a test pins them.

export { FaaSClient } from "./client.js";
export {
  APIError,
  ConflictError,
  ConnectFailedError,
  ConnectionLostError,
  ExecutionTimeoutError,
  FaaSError,
  ForbiddenError,
  GoneError,
  ImageUnavailableError,
  InsufficientStorageError,
  InternalError,
  InvalidRequestError,
  MethodNotAllowedError,
  NotFoundError,
  OverloadedError,
  PayloadTooLargeError,
  QuotaExceededError,
  RangeNotSatisfiableError,
  RateLimitedError,
  RequestTimeoutError,
  ResponseFormatError,
  RuntimeUnavailableError,
  SandboxLostError,
  TransportError,
  TransportTimeoutError,
  UnauthorizedError,
  UnsupportedError,
  UnsupportedMediaTypeError,
} from "./errors.js";
export type { CallOptions, ClientOptions, ExecuteOptions, FileInput, RetryPolicy } from "./options.js";
export {
  type Capabilities,
  ExecuteResult,
  type FieldError,
  type Health,
  type LimitsSupport,
  type RuntimeCapabilities,
  type RuntimeHealth,
  type Support,
  type Timings,
  type VersionInfo,
} from "./types.js";
export { VERSION } from "./version.js";
