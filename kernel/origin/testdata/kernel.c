/* A kernel in small: what it answers comes from somewhere. The first argument of call
 * says from where; the comment "from N" is on the line that makes the error. */
#define noinline __attribute__((noinline, noclone))
typedef long (*method)(int);

static struct message { int type, error; } reply;
static volatile int kept = -13; /* from 7 */
static volatile int zero;

static noinline long refuse(int type)
{
	if (type != zero)
		return -1; /* from 0 */
	return 0;
}

static noinline long choose(int type)
{
	int err = 0;
	if (type & 1)
		err = -12; /* from 1 */
	else
		err = zero;
	return err;
}

static inline __attribute__((always_inline)) int inlined(int type)
{
	if (type == 2)
		return -22; /* from 2 */
	return zero;
}

static noinline long wraps(int type)
{
	zero = inlined(type);
	int err = zero;
	zero = 0;
	return err;
}

static noinline long middle(int type, method m)
{
	volatile int saved = type;
	long err = m(saved);
	if (err)
		return err;
	return saved;
}

static noinline void by_pointer(int *result)
{
	*result = -5; /* from 3 */
}

static noinline long points(int type)
{
	int result = 0;
	by_pointer(&result);
	zero = type;
	zero = 0;
	return result;
}

static noinline long computes(int type)
{
	return -type - zero; /* from 4 */
}

static noinline void acknowledge(struct message *m, int error)
{
	m->type = 2;
	m->error = error;
}

static noinline long acks(int type)
{
	acknowledge(&reply, refuse(type));
	return 132;
}

static noinline long keeps(int type)
{
	return kept;
}

static noinline long loops(int type)
{
	int err = -11; /* from 6 */
	for (int i = 0; i < 100; i++)
		zero = refuse(0);
	return err;
}

noinline long call(int type)
{
	switch (type) {
	case 0: return middle(type + 1, refuse);
	case 1: return middle(type, choose);
	case 2: return middle(type, wraps);
	case 3: return middle(type, points);
	case 4: return middle(type, computes);
	case 5: return middle(type, acks);
	case 6: return middle(type, loops);
	}
	return middle(type, keeps);
}

void _start(void)
{
	long number;
	__asm__ volatile("mov 8(%%rbp), %0" : "=r"(number)); /* argc */
	call(number - 1);
	__asm__ volatile("syscall" : : "a"(60L), "D"(0L));
}
