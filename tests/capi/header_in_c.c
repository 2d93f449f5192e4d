/* The header by itself, in C99 without extensions. */
#include <covey_client.h>

int covey_header_works_in_c(void);
int covey_header_works_in_c(void) {
  covey_client_status status = {sizeof(covey_client_status), 0, 0, 0, 0, 0, {0}};
  return status.size == sizeof status && covey_client_abi() == COVEY_CLIENT_ABI;
}
